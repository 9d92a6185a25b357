// Which modules an adapter adapts, which biases and modules are trained beside it: what all of PEFT's methods share.
#pragma once

#include <concepts>
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

/// The settings that every method has, with PEFT's names and defaults.
struct AdapterTargets {
    /// Whether the method adapts embeddings too.
    static constexpr bool adapts_embeddings = false;

    std::optional<ModuleSelection> target_modules; ///< the model's default where absent
    std::optional<ModuleSelection> exclude_modules;
    std::optional<std::vector<std::int64_t>> layers_to_transform;
    std::vector<std::string> layers_pattern;
    std::vector<std::string> modules_to_save; ///< modules that are trained whole beside the adapters, by name
    BiasMode bias = BiasMode::none;
    std::string base_model_name_or_path;
    std::vector<std::string> unknown_keys; ///< keys of a file that are not known; ignored, and worth a line of notice
};

/// The config of one method.
template <class Config>
concept AdapterMethod = std::derived_from<Config, AdapterTargets>;

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

/// Throws OptionError for a setting that is not `fine`. `where` names the file or the option's owner.
inline void require_setting(bool fine, const std::string& where, const std::string& key, const std::string& found,
                            const std::string& expected) {
    if (!fine) {
        throw OptionError(concat(where, ": key '", key, "': found ", found, ", expected ", expected));
    }
}

/// Throws OptionError for a pattern that is none.
inline void require_pattern(const std::string& where, const std::string& key, const std::string& pattern) {
    try {
        const Pattern compiled(pattern);
    } catch (const OptionError& error) {
        throw OptionError(concat(where, ": key '", key, "': ", error.what()));
    }
}

inline void require_selection(const std::string& where, const std::string& key,
                              const std::optional<ModuleSelection>& selection) {
    if (selection && std::holds_alternative<std::string>(*selection)) {
        require_pattern(where, key, std::get<std::string>(*selection));
    }
}

/// A dropout's probability must be below 1.
inline void require_dropout(const std::string& where, const std::string& key, double probability) {
    require_setting(probability >= 0 && probability < 1, where, key, std::to_string(probability),
                    "at least 0 and below 1");
}

} // namespace detail

/// Whether the config adapts the module at `path`; `is_head` says that it is the output head, which "all-linear" leaves
/// out. The rules are PEFT's check_target_module_exists. Without target_modules nothing is adapted: with_defaults fills
/// these in.
inline bool targets_module(const AdapterTargets& config, const std::string& path, bool is_head) {
    if (!config.target_modules || (config.exclude_modules && detail::is_selected(*config.exclude_modules, path)) ||
        detail::is_inside(config.modules_to_save, path)) {
        return false;
    }
    const ModuleSelection& selection = *config.target_modules;
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

/// Throws OptionError for combinations that PEFT refuses, and for patterns that are none. `where` names the file or the
/// option's owner.
inline void validate_targets(const AdapterTargets& config, const std::string& where) {
    const bool lists =
        !config.target_modules || std::holds_alternative<std::vector<std::string>>(*config.target_modules);
    detail::require_setting(lists || !config.layers_to_transform, where, "layers_to_transform", "a list",
                            "none when target_modules is a pattern or all-linear");
    detail::require_setting(config.layers_pattern.empty() || config.layers_to_transform, where, "layers_pattern",
                            "a list", "none without layers_to_transform");
    detail::require_selection(where, "target_modules", config.target_modules);
    detail::require_selection(where, "exclude_modules", config.exclude_modules);
    for (const std::string& pattern : config.layers_pattern) {
        detail::require_pattern(where, "layers_pattern", pattern);
    }
}

} // namespace lowrank
