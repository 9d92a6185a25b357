// The template that a run leaves beside what it trained: template.json.
#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include "lowrank/text/text_template.hpp"

namespace examples {

inline constexpr const char* template_file = "template.json";

/// The template in the first of the directories that holds one; "" is no directory.
inline std::optional<lowrank::TextTemplate> stored_template(const std::vector<std::filesystem::path>& directories) {
    for (const std::filesystem::path& directory : directories) {
        if (!directory.empty() && std::filesystem::exists(directory / template_file)) {
            return lowrank::TextTemplate::load(directory / template_file);
        }
    }
    return std::nullopt;
}

} // namespace examples
