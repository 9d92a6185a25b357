// The settings of IA3: PEFT's IA3Config.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "lowrank/adapters/adapter_targets.hpp"

namespace lowrank {

/// PEFT's IA3Config, with its names and defaults.
struct Ia3Config : AdapterTargets {
    static constexpr const char* peft_type = "IA3";

    /// Those of the targets whose input is scaled and not their output; the model's default where absent. Names are
    /// ends of paths, as PEFT compares them here.
    std::optional<ModuleSelection> feedforward_modules;
    bool init_ia3_weights = true; ///< factors start at 1; false: at random
};

/// Whether the input of the layer at `path` is scaled.
inline bool is_feedforward(const Ia3Config& config, const std::string& path) {
    if (!config.feedforward_modules) {
        return false;
    }
    if (const auto* names = std::get_if<std::vector<std::string>>(&*config.feedforward_modules)) {
        return std::any_of(names->begin(), names->end(), [&](const std::string& name) { return path.ends_with(name); });
    }
    return detail::is_selected(*config.feedforward_modules, path);
}

/// Throws OptionError for combinations that PEFT refuses, and for settings that IA3 does not have. `where` names the
/// file or the option's owner.
inline void validate(const Ia3Config& config, const std::string& where) {
    validate_targets(config, where);
    detail::require_selection(where, "feedforward_modules", config.feedforward_modules);
    detail::require_setting(config.bias == BiasMode::none, where, "bias", "a choice", "none: IA3 scales biases itself");
    detail::require_setting(!config.layers_to_transform, where, "layers_to_transform", "a list",
                            "none: IA3 has no such setting; name the modules instead");
    if (!config.feedforward_modules || !config.target_modules ||
        !std::holds_alternative<std::vector<std::string>>(*config.feedforward_modules) ||
        !std::holds_alternative<std::vector<std::string>>(*config.target_modules)) {
        return;
    }
    const auto& all = std::get<std::vector<std::string>>(*config.target_modules);
    for (const std::string& name : std::get<std::vector<std::string>>(*config.feedforward_modules)) {
        detail::require_setting(std::find(all.begin(), all.end(), name) != all.end(), where, "feedforward_modules",
                                "'" + name + "'", "names of target_modules");
    }
}

} // namespace lowrank
