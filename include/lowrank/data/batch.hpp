// A micro-batch: rows padded to one length, with the counts that the loss and the metrics need.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/data/example.hpp"

namespace lowrank {

/// Rows padded on the right to the longest. What is padding follows from `lengths`, never from a token id: the pad id
/// in `input_ids` is 0, a token like any other, and attention is causal, so no real token sees it.
struct Batch {
    std::int64_t rows = 0;
    std::int64_t length = 0;             ///< of the padded rows
    std::vector<std::int32_t> input_ids; ///< [rows, length], padded with 0
    std::vector<std::int32_t> labels;    ///< [rows, length], padded with ignored_label; not shifted
    std::vector<std::int32_t> lengths;   ///< [rows]: how many tokens of each row are real
    /// [rows, length]: the first position of the document that each token belongs to (ForwardContext's), padding being
    /// one of its own; empty where no row is packed.
    std::vector<std::int32_t> document_start;
    std::vector<std::size_t> dataset_rows; ///< [rows]: which row of the dataset each one is, for messages
    std::int64_t tokens = 0;               ///< padding excluded
    std::int64_t supervised_tokens = 0;    ///< labels that the loss counts (after the shift)
};

namespace detail {

/// One row of Batch::document_start.
inline void fill_document_start(const Example& example, std::span<std::int32_t> row) {
    const std::size_t length = example.input_ids.size();
    for (std::size_t i = 0; i < example.document_starts.size(); ++i) {
        const auto begin = static_cast<std::size_t>(example.document_starts[i]);
        const std::size_t end =
            i + 1 < example.document_starts.size() ? static_cast<std::size_t>(example.document_starts[i + 1]) : length;
        std::fill(row.begin() + static_cast<std::ptrdiff_t>(begin), row.begin() + static_cast<std::ptrdiff_t>(end),
                  example.document_starts[i]);
    }
    std::fill(row.begin() + static_cast<std::ptrdiff_t>(length), row.end(), static_cast<std::int32_t>(length));
}

} // namespace detail

/// The batch of these rows of `data`, in this order. Throws ShapeError for no rows or one that does not exist.
inline Batch make_batch(const Dataset& data, std::span<const std::size_t> rows) {
    if (rows.empty()) {
        throw ShapeError("make_batch: found no rows, expected at least one");
    }
    Batch batch;
    bool packed = false;
    batch.rows = static_cast<std::int64_t>(rows.size());
    batch.dataset_rows.assign(rows.begin(), rows.end());
    for (const std::size_t row : rows) {
        if (row >= data.size()) {
            throw ShapeError(concat("make_batch: found row ", row, ", expected fewer than ", data.size()));
        }
        const auto length = static_cast<std::int64_t>(data.examples[row].input_ids.size());
        batch.lengths.push_back(static_cast<std::int32_t>(length));
        batch.length = std::max(batch.length, length);
        batch.tokens += length;
        batch.supervised_tokens += supervised_tokens(data.examples[row]);
        packed = packed || !data.examples[row].document_starts.empty();
    }
    const auto size = static_cast<std::size_t>(batch.rows * batch.length);
    batch.input_ids.assign(size, 0);
    batch.labels.assign(size, ignored_label);
    batch.document_start.assign(packed ? size : 0, 0);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const Example& example = data.examples[rows[i]];
        const auto start = static_cast<std::ptrdiff_t>(i) * static_cast<std::ptrdiff_t>(batch.length);
        std::copy(example.input_ids.begin(), example.input_ids.end(), batch.input_ids.begin() + start);
        std::copy(example.labels.begin(), example.labels.end(), batch.labels.begin() + start);
        if (packed) {
            detail::fill_document_start(
                example, std::span(batch.document_start)
                             .subspan(static_cast<std::size_t>(start), static_cast<std::size_t>(batch.length)));
        }
    }
    return batch;
}

} // namespace lowrank
