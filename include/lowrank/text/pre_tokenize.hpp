// Splits text into the pieces that byte-level BPE never merges across: the regular expressions of tokenizers, by hand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "lowrank/text/unicode.hpp"

namespace lowrank {

/// The pattern by which a tokenizer splits text.
enum class SplitPattern : std::uint8_t {
    gpt2, ///< 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
};

namespace detail {

struct ClassifiedChar {
    CharClass type;
    std::uint8_t length;
};

/// The class of the byte at `position`, or not_ascii.
inline CharClass byte_class(std::string_view text, std::size_t position) {
    return byte_classes[static_cast<unsigned char>(text[position])];
}

/// The class and length in bytes of the character at `position`; the text must be well-formed UTF-8.
inline ClassifiedChar classify(std::string_view text, std::size_t position) {
    if (const CharClass type = byte_class(text, position); type != not_ascii) {
        return {type, 1};
    }
    const Utf8Step step = utf8_step(text, position);
    return {CharClassTable::of(step.code_point), step.length};
}

/// The end of the run of characters of class `type` that goes on at `position`.
inline std::size_t run_end(std::string_view text, std::size_t position, CharClass type) {
    while (position < text.size()) {
        if (const CharClass ascii = byte_class(text, position); ascii == type) {
            ++position;
        } else if (ascii != not_ascii) {
            break;
        } else if (const ClassifiedChar next = classify(text, position); next.type == type) {
            position += next.length;
        } else {
            break;
        }
    }
    return position;
}

/// \s+(?!\S)|\s+ : a run of spaces gives its last one to the word that follows, unless it is the only one.
inline std::size_t spaces_end(std::string_view text, std::size_t begin) {
    std::size_t last = begin;
    std::size_t end = begin;
    while (end < text.size()) {
        const ClassifiedChar next = classify(text, end);
        if (next.type != CharClass::space) {
            return last == begin ? end : last;
        }
        last = end;
        end += next.length;
    }
    return end;
}

/// The length of 's, 't, 're, 've, 'm, 'll or 'd at the start of `text`, or 0.
inline std::size_t contraction_length(std::string_view text) {
    const char first = text.size() > 1 ? text[1] : '\0';
    if (first == 's' || first == 't' || first == 'm' || first == 'd') {
        return 2;
    }
    const std::string_view three = text.substr(0, 3);
    return three == "'re" || three == "'ve" || three == "'ll" ? 3 : 0;
}

inline std::size_t gpt2_piece_end(std::string_view text, std::size_t begin) {
    if (text[begin] == '\'') {
        if (const std::size_t length = contraction_length(text.substr(begin))) {
            return begin + length;
        }
    }
    const std::size_t start = text[begin] == ' ' && begin + 1 < text.size() ? begin + 1 : begin;
    const ClassifiedChar first = classify(text, start);
    return first.type == CharClass::space ? spaces_end(text, begin) : run_end(text, start + first.length, first.type);
}

} // namespace detail

/// Calls `visit(std::string_view piece)` for each piece of `text` (well-formed UTF-8) in turn; together they are the
/// text.
template <class Visit>
void for_each_piece(SplitPattern pattern, std::string_view text, Visit&& visit) {
    switch (pattern) {
    case SplitPattern::gpt2:
        for (std::size_t begin = 0; begin < text.size();) {
            const std::size_t end = detail::gpt2_piece_end(text, begin);
            visit(text.substr(begin, end - begin));
            begin = end;
        }
        break;
    }
}

} // namespace lowrank
