// Attaching LoRA adapters to a model: freezing the base, choosing layers, starting factors, counting parameters.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "lowrank/adapters/dora.hpp"
#include "lowrank/adapters/lora_config.hpp"
#include "lowrank/core/random.hpp"
#include "lowrank/nn/embedding.hpp"
#include "lowrank/nn/initialize.hpp"
#include "lowrank/nn/module.hpp"
#include "lowrank/nn/parameters.hpp"

namespace lowrank {

/// The values of one adapter, as PEFT's files hold them; undefined ones are started anew.
template <class C, DeviceTag D>
struct LoraValues {
    Tensor<C, D> a, b, b_bias, magnitude;
};

namespace detail {

/// Starting factors as PEFT draws them: A ~ U(±1/√in) (kaiming with a = √5) or N(0, 1/r), B = 0 or U(±1/√r).
template <class C, DeviceTag D>
LoraValues<C, D> initial_lora(LoraInit init, std::int64_t out, std::int64_t in, std::int64_t r, bool with_bias,
                              Rng& rng) {
    LoraValues<C, D> values;
    const double bound = 1 / std::sqrt(static_cast<double>(in)), b_bound = 1 / std::sqrt(static_cast<double>(r));
    values.a = init == LoraInit::gaussian ? drawn<C, D>({r, in}, [&] { return rng.normal() / static_cast<double>(r); })
                                          : drawn<C, D>({r, in}, [&] { return rng.uniform(-bound, bound); });
    values.b = init == LoraInit::random ? drawn<C, D>({out, r}, [&] { return rng.uniform(-b_bound, b_bound); })
                                        : Tensor<C, D>::zeros({out, r});
    if (with_bias) {
        values.b_bias = Tensor<C, D>::zeros({out});
    }
    return values;
}

/// Whether the layer at `path` is the model's head, as the model says it.
template <class M>
bool is_head(const M& model, const std::string& path) {
    if constexpr (requires { model.is_head(path); }) {
        return model.is_head(path);
    } else {
        return false;
    }
}

/// The modules that are targeted where the settings name none, as the model says it.
template <class M>
std::vector<std::string> default_target_modules(const M& model) {
    if constexpr (requires { model.default_target_modules(); }) {
        return model.default_target_modules();
    } else {
        return {};
    }
}

} // namespace detail

/// Freezes every parameter of a model and takes its adapters off.
template <class T, DeviceTag D, Module M>
void freeze(M& model) {
    for_each_parameter<compute_t<T>, D>(model, [](const std::string&, auto& field) { set_trainable(field, false); });
    for_each<Linear<T, D>>(model, [](const std::string&, Linear<T, D>& layer) { layer.adapter = nullptr; });
}

/// Attaches an adapter to one linear layer. `values` that are undefined are drawn from `rng`. Throws ShapeError where
/// given values do not fit the layer.
template <class T, DeviceTag D>
void attach_lora(const std::string& path, Linear<T, D>& layer, const LoraConfig& config, Rng& rng,
                 LoraValues<compute_t<T>, D> values = {}) {
    using C = compute_t<T>;
    const std::int64_t r = rank_at(config, path), out = layer.weight.out(), in = layer.weight.in();
    if (!values.a.defined()) {
        values = detail::initial_lora<C, D>(config.init_lora_weights, out, in, r, config.lora_bias, rng);
    }
    if (values.a.shape() != Shape{r, in} || values.b.shape() != Shape{out, r}) {
        throw ShapeError(concat(path, ": lora_A ", values.a.shape(), " and lora_B ", values.b.shape(), ", expected ",
                                Shape{r, in}, " and ", Shape{out, r}));
    }
    const double scale = lora_scale(alpha_at(config, path), r, config.use_rslora);
    const std::uint32_t site = dropout_site(path + ".lora_dropout");
    if (config.use_dora) {
        layer.adapter = std::make_shared<Dora<T, D>>(layer.weight, values.a, values.b, values.b_bias, values.magnitude,
                                                     scale, config.lora_dropout, site);
    } else {
        layer.adapter =
            std::make_shared<Lora<T, D>>(values.a, values.b, values.b_bias, scale, config.lora_dropout, site);
    }
    set_trainable(layer.bias, config.bias != BiasMode::none);
}

/// The paths of the linear layers that the config targets, in the order of the model. Throws OptionError when none
/// matches, and for a target that is no linear layer of the model.
template <class T, DeviceTag D, Module M>
std::vector<std::string> target_paths(M& model, const LoraConfig& config) {
    std::vector<std::string> targets, linears;
    const auto is_target = [&](const std::string& path) {
        return targets_module(config, path, detail::is_head(model, path), detail::default_target_modules(model));
    };
    const bool all_linear = config.target_modules == ModuleSelection("all-linear");
    for (const FieldRef& field : fields_of(model)) {
        const std::string& path = field.path();
        if (field.get<Linear<T, D>>() != nullptr) {
            linears.push_back(path);
            if (is_target(path)) {
                targets.push_back(path);
            }
        } else if (field.is_module() && !all_linear && is_target(path)) {
            throw OptionError(concat("target_modules: '", path, "' is no linear layer; only these can be adapted"));
        }
    }
    if (config.target_modules && std::holds_alternative<std::vector<std::string>>(*config.target_modules)) {
        for (const std::string& name : std::get<std::vector<std::string>>(*config.target_modules)) {
            if (detail::is_head(model, name) && std::find(linears.begin(), linears.end(), name) == linears.end()) {
                throw OptionError(concat("target_modules: '", name,
                                         "' is tied to the embedding in this model and cannot be adapted"));
            }
        }
    }
    if (targets.empty()) {
        std::string known;
        for (std::size_t i = 0; i < linears.size() && i < 8; ++i) {
            known += (i ? ", " : "") + linears[i];
        }
        throw OptionError(concat("target_modules: no linear layer of the model matches; the model has ", known,
                                 linears.size() > 8 ? ", …" : ""));
    }
    return targets;
}

/// Throws OptionError for a name in modules_to_save that no module has, and for embeddings and heads, which may share a
/// matrix.
template <class T, DeviceTag D, Module M>
void check_modules_to_save(M& model, const LoraConfig& config) {
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

/// Freezes the model and attaches adapters to the layers that the config targets, with values that `values_at(path,
/// layer)` gives (undefined ones start anew from `seed`). Returns the paths of the adapted layers. Throws OptionError
/// as validate, target_paths and check_modules_to_save do, before anything changes. M may have
/// default_target_modules(), used where the config names none, and is_head(path).
template <class T, DeviceTag D, Module M, class Values>
std::vector<std::string> attach_lora(M& model, const LoraConfig& config, std::uint64_t seed, const Values& values_at) {
    validate(config, "LoRA settings");
    check_modules_to_save<T, D>(model, config);
    const std::vector<std::string> targets = target_paths<T, D>(model, config);
    freeze<T, D>(model);
    for_each<Linear<T, D>>(model, [&](const std::string& path, Linear<T, D>& layer) {
        if (std::find(targets.begin(), targets.end(), path) != targets.end()) {
            Rng rng(seed, dropout_site(path)); // a stream of its own: one layer's start does not depend on the others
            attach_lora(path, layer, config, rng, values_at(path, layer));
        }
    });
    for_each_parameter<compute_t<T>, D>(model, [&](const std::string& path, auto& field) {
        const std::string module_path = path.substr(0, path.rfind('.'));
        if ((config.bias == BiasMode::all && path.ends_with("bias")) ||
            detail::is_inside(config.modules_to_save, module_path)) {
            set_trainable(field, true);
        }
    });
    return targets;
}

/// The same with factors that start anew.
template <class T, DeviceTag D, Module M>
std::vector<std::string> attach_lora(M& model, const LoraConfig& config, std::uint64_t seed) {
    return attach_lora<T, D>(model, config, seed,
                             [](const std::string&, const Linear<T, D>&) { return LoraValues<compute_t<T>, D>(); });
}

/// How many parameters a model has, and how many of them are trained.
struct ParameterCounts {
    std::int64_t trainable = 0, all = 0;
};

template <class T, DeviceTag D, Module M>
ParameterCounts count_parameters(M& model) {
    ParameterCounts counts;
    for_each_parameter<compute_t<T>, D>(model,
                                        [&](const std::string&, auto& field) { counts.all += parameter_count(field); });
    for (const auto& tensor : trainable_tensors<T, D>(model)) {
        counts.trainable += tensor.values.numel();
    }
    for_each<Linear<T, D>>(model, [&](const std::string&, Linear<T, D>& layer) {
        if (layer.adapter) {
            layer.adapter->parameters([&](const std::string&, auto& values) { counts.all += values.numel(); });
        }
    });
    return counts;
}

/// "trainable params: 294,912 || all params: 124,734,720 || trainable%: 0.2364", as PEFT prints it.
inline std::string describe(const ParameterCounts& counts) {
    const auto grouped = [](std::int64_t value) {
        std::string text = std::to_string(value);
        for (std::ptrdiff_t i = static_cast<std::ptrdiff_t>(text.size()) - 3; i > 0; i -= 3) {
            text.insert(static_cast<std::size_t>(i), 1, ',');
        }
        return text;
    };
    char percent[32];
    std::snprintf(percent, sizeof percent, "%.4f",
                  counts.all ? 100.0 * static_cast<double>(counts.trainable) / static_cast<double>(counts.all) : 0.0);
    return "trainable params: " + grouped(counts.trainable) + " || all params: " + grouped(counts.all) +
           " || trainable%: " + percent;
}

} // namespace lowrank
