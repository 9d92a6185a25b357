// Where a model takes an adapter: the layers that the settings target, and what is trained beside them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <set>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "lowrank/adapters/adapter_defaults.hpp"
#include "lowrank/nn/embedding.hpp"
#include "lowrank/nn/linear.hpp"
#include "lowrank/nn/module.hpp"

namespace lowrank {

/// The paths of the layers that the config targets, in the order of the model: linear layers, and embeddings where the
/// method adapts these. Throws OptionError when none matches, and for a target that is no such layer of the model.
template <class T, DeviceTag D, Module M, AdapterMethod Config>
std::vector<std::string> target_paths(M& model, Config config) {
    set_defaults(config, model);
    std::vector<std::string> found, linears;
    const bool all_linear = config.target_modules == ModuleSelection("all-linear");
    for (const FieldRef& field : fields_of(model)) {
        const std::string& path = field.path();
        const bool is_linear = field.get<Linear<T, D>>() != nullptr;
        if (is_linear) {
            linears.push_back(path);
        }
        if (!field.is_module() || (all_linear && !is_linear) ||
            !targets_module(config, path, detail::is_head(model, path))) {
            continue;
        }
        if (!is_linear && !(Config::adapts_embeddings && field.get<Embedding<T, D>>() != nullptr)) {
            throw OptionError(concat("target_modules: '", path, "' is no linear layer",
                                     Config::adapts_embeddings ? " and no embedding" : "",
                                     "; only these can be adapted"));
        }
        found.push_back(path);
    }
    if (config.target_modules && std::holds_alternative<std::vector<std::string>>(*config.target_modules)) {
        for (const std::string& name : std::get<std::vector<std::string>>(*config.target_modules)) {
            if (detail::is_head(model, name) && std::find(linears.begin(), linears.end(), name) == linears.end()) {
                throw OptionError(concat("target_modules: '", name,
                                         "' is tied to the embedding in this model and cannot be adapted"));
            }
        }
    }
    if (found.empty()) {
        std::string known;
        for (std::size_t i = 0; i < linears.size() && i < 8; ++i) {
            known += (i ? ", " : "") + linears[i];
        }
        throw OptionError(concat("target_modules: no linear layer of the model matches; the model has ", known,
                                 linears.size() > 8 ? ", …" : ""));
    }
    return found;
}
template <class T, DeviceTag D, Module M>
std::vector<std::string> target_paths(M& model, const AdapterConfig& config) {
    return std::visit([&](const auto& one) { return target_paths<T, D>(model, one); }, config);
}

/// Throws OptionError for a name in modules_to_save that no module has, and for embeddings and heads, which may share a
/// matrix.
template <class T, DeviceTag D, Module M>
void check_modules_to_save(M& model, const AdapterTargets& config) {
    const std::vector<FieldRef> fields = fields_of(model);
    for (const std::string& name : config.modules_to_save) {
        bool found = false;
        for (const FieldRef& field : fields) {
            const std::string& path = field.path();
            if (field.is_module()) {
                found = found || detail::is_named({name}, path);
                const bool may_share = field.get<Embedding<T, D>>() != nullptr || detail::is_head(model, path);
                if (may_share && detail::is_inside({name}, path)) {
                    throw OptionError(concat("modules_to_save: '", name, "' holds ", path,
                                             ": embeddings and heads are not supported here"));
                }
            }
        }
        if (!found) {
            throw OptionError(concat("modules_to_save: no module of the model is called '", name,
                                     "', or it is a head that is tied to the embedding"));
        }
    }
}

/// Whether a parameter of the base model is trained beside the adapters of the layers at `targets`.
inline bool is_trained_beside(const AdapterTargets& config, const std::set<std::string>& targets,
                              const std::string& parameter) {
    const std::size_t dot = parameter.rfind('.');
    const std::string module_path = parameter.substr(0, dot == parameter.npos ? 0 : dot);
    const bool chosen =
        config.bias == BiasMode::all || (config.bias == BiasMode::lora_only && targets.contains(module_path));
    return (chosen && parameter.ends_with("bias")) || detail::is_inside(config.modules_to_save, module_path);
}

} // namespace lowrank
