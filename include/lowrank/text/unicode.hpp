// UTF-8: decoding, validation, replacement of malformed bytes; and the classes of code points that tokenizers split by.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "lowrank/text/unicode_tables.hpp"

namespace lowrank {

/// What Hugging Face's patterns distinguish: \p{L}, \p{N}, \s and the rest.
enum class CharClass : std::uint8_t { other, letter, number, space };

/// One step through UTF-8.
struct Utf8Step {
    enum class Status : std::uint8_t { valid, invalid, incomplete };
    char32_t code_point;
    std::uint8_t
        length;    ///< of the character, or of the maximal part of it that is there (Unicode 3.9, U+FFFD substitution)
    Status status; ///< incomplete: the text ends inside a character that is well-formed so far
};

/// Decodes the character at `position` (< text.size()), which may be malformed.
inline Utf8Step utf8_step(std::string_view text, std::size_t position) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[position + i]); };
    const unsigned lead = byte(0);
    if (lead < 0x80) {
        return {lead, 1, Utf8Step::Status::valid};
    }
    const unsigned length = lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    if (length == 0) {
        return {0, 1, Utf8Step::Status::invalid};
    }
    // The second byte's range excludes overlong forms, surrogates and what lies above U+10FFFF.
    unsigned low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    unsigned high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    char32_t code_point = lead & (0x7fu >> length);
    for (unsigned i = 1; i < length; ++i) {
        if (position + i >= text.size()) {
            return {0, static_cast<std::uint8_t>(i), Utf8Step::Status::incomplete};
        }
        if (byte(i) < low || byte(i) > high) {
            return {0, static_cast<std::uint8_t>(i), Utf8Step::Status::invalid};
        }
        code_point = (code_point << 6) | (byte(i) & 0x3fu);
        low = 0x80;
        high = 0xbf;
    }
    return {code_point, static_cast<std::uint8_t>(length), Utf8Step::Status::valid};
}

/// The offset of the first byte that is not part of well-formed UTF-8, or nothing where all of `text` is.
inline std::optional<std::size_t> validate_utf8(std::string_view text) {
    std::size_t position = 0;
    while (position < text.size()) {
        std::uint64_t eight = 0;
        while (position + sizeof eight <= text.size()) { // ASCII, eight bytes at a time
            std::memcpy(&eight, text.data() + position, sizeof eight);
            if ((eight & 0x8080808080808080u) != 0) {
                break;
            }
            position += sizeof eight;
        }
        if (position == text.size()) {
            break;
        }
        const Utf8Step step = utf8_step(text, position);
        if (step.status != Utf8Step::Status::valid) {
            return position;
        }
        position += step.length;
    }
    return std::nullopt;
}

/// Appends `code_point` (a Unicode scalar value) as UTF-8.
inline void append_utf8(std::string& out, char32_t code_point) {
    const auto tail = [&](int shift) { out += static_cast<char>(0x80 | ((code_point >> shift) & 0x3f)); };
    if (code_point < 0x80) {
        out += static_cast<char>(code_point);
    } else if (code_point < 0x800) {
        out += static_cast<char>(0xc0 | (code_point >> 6));
        tail(0);
    } else if (code_point < 0x10000) {
        out += static_cast<char>(0xe0 | (code_point >> 12));
        tail(6);
        tail(0);
    } else {
        out += static_cast<char>(0xf0 | (code_point >> 18));
        tail(12);
        tail(6);
        tail(0);
    }
}

/// Appends `bytes` as well-formed UTF-8: each maximal malformed part becomes one U+FFFD, as Python's errors="replace"
/// and Rust's from_utf8_lossy do. Unless `last`, a character that the bytes only begin is left alone. Returns the bytes
/// consumed.
inline std::size_t append_utf8_lossy(std::string& out, std::string_view bytes, bool last) {
    std::size_t position = 0;
    while (position < bytes.size()) {
        const Utf8Step step = utf8_step(bytes, position);
        if (step.status == Utf8Step::Status::valid) {
            out.append(bytes, position, step.length);
        } else if (step.status == Utf8Step::Status::incomplete && !last) {
            break;
        } else {
            out += "\xef\xbf\xbd";
        }
        position += step.length;
    }
    return position;
}

namespace detail {

/// The class of each code point, four to a byte, expanded from the ranges at the first use (0.3 MB, most of it
/// untouched).
class CharClassTable {
  public:
    static CharClass of(char32_t code_point) {
        static const CharClassTable table;
        return static_cast<CharClass>((table.packed_[code_point >> 2] >> (2 * (code_point & 3))) & 3);
    }

  private:
    CharClassTable() {
        fill(space_ranges, CharClass::space);
        fill(number_ranges, CharClass::number);
        fill(letter_ranges, CharClass::letter);
    }
    template <std::size_t Count>
    void fill(const CodePointRange (&ranges)[Count], CharClass value) {
        for (const CodePointRange range : ranges) {
            for (char32_t c = range.first; c <= range.last; ++c) {
                packed_[c >> 2] |= static_cast<std::uint8_t>(static_cast<unsigned>(value) << (2 * (c & 3)));
            }
        }
    }

    std::array<std::uint8_t, 0x110000 / 4> packed_{};
};

/// No class: of bytes that are part of a longer character.
inline constexpr CharClass not_ascii{0xff};

inline constexpr std::array<CharClass, 256> byte_classes = [] {
    std::array<CharClass, 256> classes{};
    for (std::size_t c = 0; c < classes.size(); ++c) {
        const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        const bool space = c == ' ' || (c >= '\t' && c <= '\r');
        classes[c] = c >= 0x80              ? not_ascii
                     : letter               ? CharClass::letter
                     : space                ? CharClass::space
                     : c >= '0' && c <= '9' ? CharClass::number
                                            : CharClass::other;
    }
    return classes;
}();

} // namespace detail

/// The class of a code point (0 … 0x10FFFF), as Hugging Face tokenizers see it.
inline CharClass char_class(char32_t code_point) {
    return code_point < 0x80 ? detail::byte_classes[code_point] : detail::CharClassTable::of(code_point);
}

} // namespace lowrank
