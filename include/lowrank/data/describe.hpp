// Shows one row with its mask made visible, for the start of a run.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/data/example.hpp"

namespace lowrank {

namespace detail {

/// Text of unknown origin, made safe for a terminal: control characters but line breaks and tabs as \xNN.
inline std::string printable(std::string_view text) {
    constexpr char digits[] = "0123456789abcdef";
    const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
    std::string out;
    for (std::size_t i = 0; i < text.size();) {
        const unsigned c = byte(i);
        const bool ascii = (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f;
        const bool upper = c == 0xC2 && byte(i + 1) >= 0x80 && byte(i + 1) < 0xA0; // U+0080 to U+009F
        if (!ascii && !upper) {
            out += text[i++];
            continue;
        }
        for (const std::size_t end = i + (upper ? 2 : 1); i < end; ++i) {
            out += {'\\', 'x', digits[byte(i) >> 4], digits[byte(i) & 15]};
        }
    }
    return out;
}

} // namespace detail

/// One row of `data` for a human reader: where it came from, how many of its tokens are supervised, and its text in
/// runs, each headed by whether the model learns to write it; documents of a packed row are set apart. `decode` turns
/// ids into text; without it the ids are shown. Control characters are escaped. Throws ShapeError when there is no such
/// row.
inline std::string describe_sample(const Dataset& data, std::size_t row,
                                   const std::function<std::string(std::span<const std::int32_t>)>& decode = {}) {
    if (row >= data.size()) {
        throw ShapeError(concat("describe_sample: found row ", row, ", expected fewer than ", data.size()));
    }
    const Example& example = data.examples[row];
    const std::span<const std::int32_t> ids(example.input_ids);
    std::string out =
        concat(data.where(row), ": ", ids.size(), " tokens, ", supervised_tokens(example), " supervised\n");
    std::size_t different = 0;
    const auto starts_document = [&](std::size_t i) {
        const auto& starts = example.document_starts;
        return std::binary_search(starts.begin(), starts.end(), static_cast<std::int32_t>(i));
    };
    for (std::size_t begin = 0; begin < ids.size();) {
        if (begin > 0 && starts_document(begin)) {
            out += "=== the next document\n";
        }
        const bool masked = example.labels[begin] == ignored_label;
        std::size_t end = begin;
        for (; end < ids.size() && (example.labels[end] == ignored_label) == masked &&
               (end == begin || !starts_document(end));
             ++end) {
            different += !masked && example.labels[end] != ids[end];
        }
        out += concat(masked ? "--- masked, " : "--- supervised, ", end - begin,
                      end - begin == 1 ? " token:\n" : " tokens:\n");
        const auto run = ids.subspan(begin, end - begin);
        if (decode) {
            out += detail::printable(decode(run));
        } else {
            for (const std::int32_t id : run) {
                out += concat(id, ' ');
            }
        }
        if (out.back() != '\n') {
            out += '\n';
        }
        begin = end;
    }
    if (different > 0) {
        out += concat("--- ", different, " labels differ from their input_ids\n");
    }
    return out;
}

} // namespace lowrank
