// Reads a whole file of bounded size into a string.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

#include "lowrank/core/file_descriptor.hpp"

namespace lowrank {

/// The most that read_text and read_json take by default: 1 GiB.
inline constexpr std::size_t max_text_bytes = std::size_t(1) << 30;

/// The bytes of the file `path` (pipes included); throws FileError where it cannot be read or holds more than `limit`
/// bytes.
inline std::string read_text(const std::filesystem::path& path, std::size_t limit = max_text_bytes) {
    const FileDescriptor file(path, O_RDONLY);
    const auto refuse_above_limit = [&](std::size_t size) {
        if (size > limit) {
            throw FileError(concat(path.string(), ": found more than ", limit, " bytes, expected at most that"));
        }
    };
    const auto announced = static_cast<std::size_t>(file.status().st_size);
    refuse_above_limit(announced);
    std::string text;
    std::size_t used = 0;
    for (;;) {
        if (used == text.size()) { // one byte more than announced, so that the end is seen without growing
            text.resize(used == 0 ? announced + 1 : used + used / 2 + 4096);
        }
        const ssize_t got = ::read(file.get(), text.data() + used, text.size() - used);
        if (got < 0 && errno != EINTR) {
            throw_file_error(path, "read", errno);
        }
        if (got == 0) {
            break;
        }
        used += got > 0 ? static_cast<std::size_t>(got) : 0;
        refuse_above_limit(used);
    }
    text.resize(used);
    return text;
}

} // namespace lowrank
