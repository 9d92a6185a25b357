// What training reads: tokenized rows with their labels, and where in which file each one came from.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/core/labels.hpp"

namespace lowrank {

/// One row. `labels` aligns with `input_ids` (labels[i] is the token at i, or ignored_label); the shift by one, by
/// which position i − 1 predicts label i, happens in the loss.
struct Example {
    std::vector<std::int32_t> input_ids;
    std::vector<std::int32_t> labels;
};

/// How many labels of a row the loss counts: those that are not ignored, the first one excepted (nothing predicts it).
inline std::int64_t supervised_tokens(const Example& example) {
    std::int64_t count = 0;
    for (std::size_t i = 1; i < example.labels.size(); ++i) {
        count += example.labels[i] != ignored_label;
    }
    return count;
}

/// Where a row came from. `line` and `record` count from 1; line 0 means a block of a plain text file, whose number is
/// `record`. `file` is an index into Dataset::files.
struct Origin {
    std::size_t file = 0;
    std::size_t line = 0;
    std::size_t record = 0;
};

/// What happened while data was read, for the report at the start of a run.
struct DataCounts {
    std::size_t records = 0;    ///< records or documents found in the files
    std::size_t truncated = 0;  ///< rows cut at max_seq_length
    std::size_t dropped = 0;    ///< rows left out because nothing supervised remained
    std::size_t cut_tokens = 0; ///< tokens lost by truncation and in dropped rows
};

/// Tokenized rows in the order of their files; `origins[i]` belongs to `examples[i]`.
struct Dataset {
    std::vector<Example> examples;
    std::vector<Origin> origins;
    std::vector<std::string> files;
    DataCounts counts;

    std::size_t size() const { return examples.size(); }

    /// "file: line l, record n" of a row, for messages.
    std::string where(std::size_t row) const {
        const Origin& from = origins.at(row);
        const std::string& file = files.at(from.file);
        return from.line == 0 ? concat(file, ": block ", from.record)
                              : concat(file, ": line ", from.line, ", record ", from.record);
    }
};

} // namespace lowrank
