// What a model decides where an adapter's settings are silent: which modules are targeted, and which one is the head.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "lowrank/adapters/adapter_config.hpp"

namespace lowrank {

namespace detail {

/// Whether the module at `path` is the model's head, as the model says it.
template <class M>
bool is_head(const M& model, const std::string& path) {
    if constexpr (requires { model.is_head(path); }) {
        return model.is_head(path);
    } else {
        return false;
    }
}

} // namespace detail

/// The settings with the model's own where they name no modules: M may have default_target_modules().
template <class M>
void set_defaults(AdapterTargets& config, const M& model) {
    if constexpr (requires { model.default_target_modules(); }) {
        if (!config.target_modules) {
            config.target_modules = ModuleSelection(model.default_target_modules());
        }
    }
}
/// IA3 has other ones: default_ia3_modules() gives the targets, and those of them that are feed-forward layers.
template <class M>
void set_defaults(Ia3Config& config, const M& model) {
    if constexpr (requires { model.default_ia3_modules(); }) {
        const auto [targets, feedforward] = model.default_ia3_modules();
        if (!config.target_modules) {
            config.target_modules = ModuleSelection(targets);
        }
        if (!config.feedforward_modules) {
            config.feedforward_modules = ModuleSelection(feedforward);
        }
    }
}
template <class M>
void set_defaults(AdapterConfig& config, const M& model) {
    std::visit([&](auto& one) { set_defaults(one, model); }, config);
}

} // namespace lowrank
