// Reading a data file as text: UTF-8 is checked, a byte order mark is dropped.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>

#include "lowrank/core/error.hpp"
#include "lowrank/io/read_text.hpp"
#include "lowrank/text/unicode.hpp"

namespace lowrank {

/// The text of a data file without its byte order mark. Throws FileError when it cannot be read, is empty, or is not
/// UTF-8 (with line and byte offset in the file).
inline std::string read_source(const std::string& path) {
    std::string text = read_text(path, std::size_t(1) << 40); // training data has no natural bound
    if (const auto bad = validate_utf8(text)) {
        const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(*bad), '\n');
        constexpr char digits[] = "0123456789abcdef";
        const auto value = static_cast<unsigned char>(text[*bad]);
        const bool utf16 = text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF");
        throw FileError(concat(path, ": line ", line, ": found the byte 0x", digits[value >> 4], digits[value & 15],
                               " at byte offset ", *bad, utf16 ? " (the file looks like UTF-16)" : "",
                               ", expected UTF-8"));
    }
    if (text.starts_with("\xEF\xBB\xBF")) {
        text.erase(0, 3);
    }
    if (text.empty()) {
        throw FileError(concat(path, ": found an empty file, expected data"));
    }
    return text;
}

} // namespace lowrank
