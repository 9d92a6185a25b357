// Messages of the programs.
#pragma once

#include <cstdio>
#include <string>
#include <utility>

#include <fmt/core.h>

namespace examples {

/// Writes to a stream. A full disk or a closed pipe throws nothing here: a long run must not die of its messages.
/// Program::run looks at standard output once more at the end.
template <class... Args>
void say(std::FILE* to, fmt::format_string<Args...> text, Args&&... args) {
    const std::string line = fmt::format(text, std::forward<Args>(args)...);
    std::fwrite(line.data(), 1, line.size(), to);
}

} // namespace examples
