// The settings of LoRA, rsLoRA and DoRA: PEFT's LoraConfig, which modules it targets, and with which rank.
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "lowrank/adapters/pattern.hpp"
#include "lowrank/core/error.hpp"

namespace lowrank {

/// Modules by name (a path, or its last parts) or by a pattern over the whole path; "all-linear" is every linear layer
/// but the head.
using ModuleSelection = std::variant<std::vector<std::string>, std::string>;

/// Which biases are trained.
enum class BiasMode { none, all, lora_only };

/// How the factors of a new adapter start: `kaiming` is PEFT's true (B = 0), `random` its false (B ≠ 0).
enum class LoraInit { kaiming, gaussian, random };

/// PEFT's LoraConfig, with its names and defaults.
struct LoraConfig {
    std::int64_t r = 8;
    double lora_alpha = 8;
    double lora_dropout = 0;
    bool use_rslora = false;
    bool use_dora = false;
    bool lora_bias = false;
    BiasMode bias = BiasMode::none;
    LoraInit init_lora_weights = LoraInit::kaiming;
    std::optional<ModuleSelection> target_modules; ///< the model's default where absent
    std::optional<ModuleSelection> exclude_modules;
    std::optional<std::vector<std::int64_t>> layers_to_transform;
    std::vector<std::string> layers_pattern;
    std::vector<std::pair<std::string, std::int64_t>> rank_pattern; ///< in order: the first match wins
    std::vector<std::pair<std::string, double>> alpha_pattern;
    std::vector<std::string> modules_to_save; ///< modules that are trained whole beside the adapters, by name
    std::string base_model_name_or_path;
    std::vector<std::string> unknown_keys; ///< keys of a file that are not known; ignored, and worth a line of notice
};

namespace detail {

inline bool is_named(const std::vector<std::string>& names, const std::string& path) {
    for (const std::string& name : names) {
        if (path == name || path.ends_with("." + name)) {
            return true;
        }
    }
    return false;
}

/// Whether the module at `path` has one of these names or lies inside one that has.
inline bool is_inside(const std::vector<std::string>& names, const std::string& path) {
    for (const std::string& name : names) {
        if (("." + path + ".").find("." + name + ".") != std::string::npos) {
            return true;
        }
    }
    return false;
}

inline bool is_selected(const ModuleSelection& selection, const std::string& path) {
    if (const auto* names = std::get_if<std::vector<std::string>>(&selection)) {
        return is_named(*names, path);
    }
    return Pattern(std::get<std::string>(selection)).matches_all(path);
}

/// The number of the layer that a path lies in, by PEFT's patterns; -1 where it lies in none.
inline std::int64_t layer_of(const std::vector<std::string>& layers_pattern, const std::string& path) {
    std::vector<std::string> patterns;
    for (const std::string& name : layers_pattern) {
        patterns.push_back(R"((?:^|.*?\.))" + name + R"(\.(?P<idx>\d+)\.)");
    }
    if (patterns.empty()) {
        patterns.push_back(R"(.*?\.[^.]*\.(?P<idx>\d+)\.)");
    }
    for (const std::string& pattern : patterns) {
        const std::string digits = Pattern(pattern).group("idx", path);
        if (!digits.empty() && digits.size() < 10) {
            return std::stoll(digits);
        }
    }
    return -1;
}

/// The value of the first key that matches the end of a path, by PEFT's rule; `fallback` where none does.
template <class Value>
Value pattern_value(const std::vector<std::pair<std::string, Value>>& patterns, const std::string& path,
                    Value fallback) {
    for (const auto& [key, value] : patterns) {
        if (Pattern("(.*\\.)?(" + key + ")").matches_all(path)) {
            return value;
        }
    }
    return fallback;
}

} // namespace detail

/// Whether the config adapts the linear layer at `path`; `is_head` says that it is the output head, which "all-linear"
/// leaves out. `defaults` are the model's target modules. The rules are PEFT's check_target_module_exists.
inline bool targets_module(const LoraConfig& config, const std::string& path, bool is_head,
                           const std::vector<std::string>& defaults) {
    if ((config.exclude_modules && detail::is_selected(*config.exclude_modules, path)) ||
        detail::is_inside(config.modules_to_save, path)) {
        return false;
    }
    const ModuleSelection selection = config.target_modules.value_or(defaults);
    if (const auto* text = std::get_if<std::string>(&selection)) {
        return *text == "all-linear" ? !is_head : detail::is_selected(selection, path);
    }
    const auto& names = std::get<std::vector<std::string>>(selection);
    for (const std::string& name : names) {
        if (path == name) {
            return true; // a full path is taken whatever its layer
        }
    }
    if (!detail::is_named(names, path)) {
        return false;
    }
    if (!config.layers_to_transform || config.layers_to_transform->empty()) {
        return true;
    }
    const std::int64_t layer = detail::layer_of(config.layers_pattern, path);
    for (std::int64_t wanted : *config.layers_to_transform) {
        if (layer == wanted) {
            return true;
        }
    }
    return false;
}

/// The rank at `path`, after rank_pattern.
inline std::int64_t rank_at(const LoraConfig& config, const std::string& path) {
    return detail::pattern_value(config.rank_pattern, path, config.r);
}

/// α at `path`, after alpha_pattern.
inline double alpha_at(const LoraConfig& config, const std::string& path) {
    return detail::pattern_value(config.alpha_pattern, path, config.lora_alpha);
}

/// Throws OptionError for settings outside their ranges, for combinations that PEFT refuses, and for patterns that are
/// none. `where` names the file or the option's owner.
inline void validate(const LoraConfig& config, const std::string& where) {
    const auto require = [&](bool fine, const std::string& key, const std::string& found, const char* expected) {
        if (!fine) {
            throw OptionError(concat(where, ": key '", key, "': found ", found, ", expected ", expected));
        }
    };
    const auto require_pattern = [&](const std::string& key, const std::string& pattern) {
        try {
            const Pattern compiled(pattern);
        } catch (const OptionError& error) {
            throw OptionError(concat(where, ": key '", key, "': ", error.what()));
        }
    };
    require(config.r >= 1, "r", std::to_string(config.r), "1 or more");
    require(std::isfinite(config.lora_alpha), "lora_alpha", std::to_string(config.lora_alpha), "a finite number");
    for (const auto& [key, rank] : config.rank_pattern) {
        require(rank >= 1, "rank_pattern." + key, std::to_string(rank), "1 or more");
    }
    require(config.lora_dropout >= 0 && config.lora_dropout < 1, "lora_dropout", std::to_string(config.lora_dropout),
            "at least 0 and below 1");
    const bool lists =
        !config.target_modules || std::holds_alternative<std::vector<std::string>>(*config.target_modules);
    require(lists || !config.layers_to_transform, "layers_to_transform", "a list",
            "none when target_modules is a pattern or all-linear");
    require(config.layers_pattern.empty() || config.layers_to_transform, "layers_pattern", "a list",
            "none without layers_to_transform");
    require(!config.lora_bias || !config.use_dora, "lora_bias", "true", "false with use_dora");
    require(!config.lora_bias || config.init_lora_weights != LoraInit::gaussian, "init_lora_weights", "\"gaussian\"",
            "true or false with lora_bias");
    for (const auto& [key, selection] :
         {std::pair("target_modules", &config.target_modules), std::pair("exclude_modules", &config.exclude_modules)}) {
        if (*selection && std::holds_alternative<std::string>(**selection)) {
            require_pattern(key, std::get<std::string>(**selection));
        }
    }
    for (const std::string& pattern : config.layers_pattern) {
        require_pattern("layers_pattern", pattern);
    }
    for (const auto& entry : config.rank_pattern) {
        require_pattern("rank_pattern", entry.first);
    }
    for (const auto& entry : config.alpha_pattern) {
        require_pattern("alpha_pattern", entry.first);
    }
}

} // namespace lowrank
