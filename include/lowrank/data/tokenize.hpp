// From segments of text to rows of tokens: labels, end-of-sequence, truncation and cutting into blocks.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/data/example.hpp"
#include "lowrank/text/segment.hpp"

namespace lowrank {

/// What data needs of a tokenizer.
template <class T>
concept TextEncoder = requires(const T& tokenizer, std::string_view text) {
    { tokenizer.encode(text) } -> std::convertible_to<std::vector<std::int32_t>>;
    { tokenizer.eos_id() } -> std::convertible_to<std::optional<std::int32_t>>;
};

namespace detail {

/// The ids of a segment's own text.
template <TextEncoder Tokenizer>
std::vector<std::int32_t> encode_text(const Tokenizer& tokenizer, const Segment& segment) {
    if constexpr (requires { tokenizer.encode(segment.text, {.special_tokens = false}); }) {
        return tokenizer.encode(segment.text, {.special_tokens = !segment.literal});
    } else {
        return tokenizer.encode(segment.text); // it has no special tokens
    }
}

} // namespace detail

/// Tokenizes each segment by itself and joins the ids; labels are the ids where a segment is supervised, otherwise
/// −100. The end-of-sequence token follows segments that end, supervised with them: once, where the text ends with it
/// already, and not at all where the tokenizer has none.
///
/// Separately, because generation tokenizes a prompt before any response exists: only then are a prompt's ids in
/// training those that inference will see. Tokenized together, BPE may merge the last characters of the prompt with the
/// first of the response ("a " + "b" → "a", " b"), so that the model learns from prompts it never meets, and no token
/// says where the mask ends.
template <TextEncoder Tokenizer>
Example encode_segments(const Tokenizer& tokenizer, std::span<const Segment> segments) {
    Example example;
    for (const Segment& segment : segments) {
        std::vector<std::int32_t> ids = detail::encode_text(tokenizer, segment);
        const std::optional<std::int32_t> eos = tokenizer.eos_id();
        if (segment.ends && eos && (ids.empty() || ids.back() != *eos)) {
            ids.push_back(*eos);
        }
        example.input_ids.insert(example.input_ids.end(), ids.begin(), ids.end());
        if (segment.supervised) {
            example.labels.insert(example.labels.end(), ids.begin(), ids.end());
        } else {
            example.labels.resize(example.input_ids.size(), ignored_label);
        }
    }
    return example;
}

/// Keeps the first `max_length` tokens of a row, and returns how many were cut. The end of the response goes, its
/// end-of-sequence token with it: the model does not learn to stop in the middle of a sentence.
inline std::size_t truncate(Example& example, std::size_t max_length) {
    const std::size_t length = example.input_ids.size();
    const std::size_t kept = std::min(length, max_length);
    example.input_ids.resize(kept);
    example.labels.resize(kept);
    return length - kept;
}

/// Cuts a document into consecutive rows of `max_length` tokens, the last one shorter. Nothing overlaps and nothing is
/// lost, but that the first token of a row is predicted by none.
inline std::vector<Example> cut_into_blocks(const Example& document, std::size_t max_length) {
    std::vector<Example> blocks;
    const auto slice = [&](const std::vector<std::int32_t>& ids, std::size_t begin, std::size_t end) {
        return std::vector<std::int32_t>(ids.begin() + static_cast<std::ptrdiff_t>(begin),
                                         ids.begin() + static_cast<std::ptrdiff_t>(end));
    };
    for (std::size_t begin = 0; begin < document.input_ids.size(); begin += max_length) {
        const std::size_t end = std::min(begin + max_length, document.input_ids.size());
        blocks.push_back({slice(document.input_ids, begin, end), slice(document.labels, begin, end)});
    }
    return blocks;
}

} // namespace lowrank
