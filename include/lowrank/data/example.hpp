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
    /// Of a packed row: where each of its documents begins, the first at 0. Empty for a row of one document.
    std::vector<std::int32_t> document_starts{};
};

/// How many labels of a row the loss counts: those that are not ignored, the first one excepted (nothing predicts it;
/// those of the other documents of a packed row are ignored).
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
    bool is_templated = false; ///< a template put text around that of the files

    std::size_t size() const { return examples.size(); }

    /// "file: line l, record n" of a row, for messages; of a packed row the first document and how many follow.
    std::string where(std::size_t row) const {
        const Origin& from = origins.at(row);
        const std::string& file = files.at(from.file);
        const std::size_t documents = examples.at(row).document_starts.size();
        const std::string others = documents > 1 ? concat(" and ", documents - 1, " packed behind it") : "";
        return from.line == 0 ? concat(file, ": block ", from.record, others)
                              : concat(file, ": line ", from.line, ", record ", from.record, others);
    }
};

} // namespace lowrank
