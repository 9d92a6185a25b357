// The alphabet of byte-level BPE files: each byte is written as one printable character (space is Ġ, newline is Ċ).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "lowrank/text/unicode.hpp"

namespace lowrank {

namespace detail {

/// GPT-2's bytes_to_unicode: printable Latin-1 stands for itself, the other 68 bytes for U+0100 and on, in order.
inline constexpr std::array<char16_t, 256> byte_to_char = [] {
    std::array<char16_t, 256> table{};
    char16_t next = 0x100;
    for (unsigned byte = 0; byte < 256; ++byte) {
        const bool printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);
        table[byte] = printable ? static_cast<char16_t>(byte) : next++;
    }
    return table;
}();

/// The inverse; -1 where no byte is written so.
inline constexpr std::array<std::int16_t, 0x144> char_to_byte = [] {
    std::array<std::int16_t, 0x144> table{};
    for (std::int16_t& byte : table) {
        byte = -1;
    }
    for (unsigned byte = 0; byte < 256; ++byte) {
        table[byte_to_char[byte]] = static_cast<std::int16_t>(byte);
    }
    return table;
}();

} // namespace detail

/// `bytes` as vocabulary files write them, for example " the" as "Ġthe".
inline std::string to_byte_alphabet(std::string_view bytes) {
    std::string text;
    text.reserve(bytes.size() * 2);
    for (const char byte : bytes) {
        append_utf8(text, detail::byte_to_char[static_cast<unsigned char>(byte)]);
    }
    return text;
}

/// The bytes that `text` stands for, or nothing where one of its characters is not of the alphabet.
inline std::optional<std::string> from_byte_alphabet(std::string_view text) {
    std::string bytes;
    bytes.reserve(text.size());
    for (std::size_t position = 0; position < text.size();) {
        const Utf8Step step = utf8_step(text, position);
        if (step.status != Utf8Step::Status::valid || step.code_point >= detail::char_to_byte.size() ||
            detail::char_to_byte[step.code_point] < 0) {
            return std::nullopt;
        }
        bytes += static_cast<char>(detail::char_to_byte[step.code_point]);
        position += step.length;
    }
    return bytes;
}

} // namespace lowrank
