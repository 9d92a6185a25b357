// Rows that are tokens already, {"input_ids": […], "labels": […]}: checked, and used exactly as they stand.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/data/example.hpp"
#include "lowrank/data/record_view.hpp"

namespace lowrank {

namespace detail {

/// The list of token ids under `role`: integers in [0, vocab_size), and −100 too where `ignored_allowed`.
inline std::vector<std::int32_t> token_list(const RecordView& record, std::string_view role, const json& list,
                                            std::int32_t vocab_size, bool ignored_allowed) {
    if (!list.is_array()) {
        record.refuse(role, JsonReader::describe(list), "a list of token ids");
    }
    std::vector<std::int32_t> ids;
    ids.reserve(list.size());
    for (const json& item : list) {
        // nlohmann holds what exceeds int64 as unsigned and what exceeds that as a float
        const bool too_big = item.is_number_unsigned() && item.get<std::uint64_t>() >= std::uint64_t(vocab_size);
        const std::int64_t value = item.is_number_integer() && !too_big ? item.get<std::int64_t>() : -1;
        if (value < 0 && !(ignored_allowed && value == ignored_label)) {
            record.refuse(role, concat(JsonReader::describe(item), " at index ", ids.size()),
                          concat("token ids from 0 to ", vocab_size - 1, ignored_allowed ? ", or -100" : ""));
        }
        ids.push_back(static_cast<std::int32_t>(value));
    }
    return ids;
}

} // namespace detail

/// The row of a pre-tokenized record: `labels` where it has them, otherwise its input_ids. Throws FileError for ids
/// outside [0, vocab_size), labels outside that and −100, an empty row, a row longer than `n_positions`, lists of
/// different lengths, and an attention_mask that hides tokens.
inline Example example_of_tokens(const RecordView& record, std::int32_t vocab_size, std::int64_t n_positions) {
    Example example;
    example.input_ids = detail::token_list(record, "input_ids", record.require("input_ids"), vocab_size, false);
    const std::size_t length = example.input_ids.size();
    if (length == 0) {
        record.refuse("input_ids", "an empty list", "at least one token");
    }
    if (length > static_cast<std::uint64_t>(n_positions)) {
        record.refuse("input_ids", concat(length, " tokens"),
                      concat("at most ", n_positions, ", the positions of the model (n_positions)"));
    }
    const json* labels = record.find("labels");
    example.labels =
        labels == nullptr ? example.input_ids : detail::token_list(record, "labels", *labels, vocab_size, true);
    if (example.labels.size() != length) {
        record.refuse("labels", concat(example.labels.size(), " labels"),
                      concat(length, ", one for each of input_ids"));
    }
    const auto mask =
        record.value().find("attention_mask"); // padding belongs to batches: a padded row would train on it
    if (mask != record.value().end() && !mask->is_null()) {
        if (*mask != json(std::vector<int>(length, 1))) {
            throw FileError(concat(record.place(), ": key 'attention_mask': found values other than ", length,
                                   " ones, expected rows without padding"));
        }
    }
    return example;
}

} // namespace lowrank
