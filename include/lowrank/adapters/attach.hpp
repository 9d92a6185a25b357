// Attaching adapters to a model: freezing the base, making an adapter for every layer that the settings target.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "lowrank/adapters/adalora.hpp"
#include "lowrank/adapters/adapter_config.hpp"
#include "lowrank/adapters/adapter_place.hpp"
#include "lowrank/adapters/ia3.hpp"
#include "lowrank/adapters/lora_adapter.hpp"
#include "lowrank/adapters/stored_values.hpp"
#include "lowrank/adapters/vera.hpp"
#include "lowrank/core/random.hpp"
#include "lowrank/nn/parameters.hpp"

// A method is a config derived from AdapterTargets, an alternative of AdapterConfig, with these overloads beside its
// adapter's class:
//   make_adapter(config, path, layer, rng, values, shared)       the adapter of a linear layer
//   make_shared_tensors(config, layers, seed, values)            only where layers share tensors
//   make_embedding_adapter(config, path, layer, rng, values)     only where Config::adapts_embeddings
//   prepare_saved(config, model, saved)                          only where a file does not hold all of its tensors
// and read_config and config_document for its adapter_config.json (peft_config.hpp).

namespace lowrank {

/// Freezes every parameter of a model and takes its adapters off.
template <class T, DeviceTag D, Module M>
void freeze(M& model) {
    for_each_parameter<compute_t<T>, D>(model, [](const std::string&, auto& field) { set_trainable(field, false); });
    for_each<Linear<T, D>>(model, [](const std::string&, Linear<T, D>& layer) { layer.adapter = nullptr; });
    for_each<Embedding<T, D>>(model, [](const std::string&, Embedding<T, D>& layer) { layer.adapter = nullptr; });
}

/// The adapters of one config for a model, by the paths of their layers.
template <class T, DeviceTag D>
struct MadeAdapters {
    std::map<std::string, std::shared_ptr<LinearAdapter<T, D>>> linears;
    std::map<std::string, std::shared_ptr<EmbeddingAdapter<T, D>>> embeddings;

    /// All paths.
    std::set<std::string> paths() const {
        std::set<std::string> all;
        for (const auto& entry : linears) {
            all.insert(entry.first);
        }
        for (const auto& entry : embeddings) {
            all.insert(entry.first);
        }
        return all;
    }
};

/// By default layers share nothing.
template <class T, DeviceTag D>
SharedTensors<compute_t<T>, D> make_shared_tensors(const AdapterTargets&, const TargetLayers<T, D>&, std::uint64_t,
                                                   const StoredValues<compute_t<T>, D>&) {
    return {};
}

/// Makes the adapters that a config asks for, and leaves the model as it is. `values` is called with the names of
/// StoredValues; what it does not have starts anew from `seed`: each layer draws from a stream of its own, so that one
/// layer's start does not depend on the others. Throws OptionError as validate and target_paths do, and ShapeError.
template <class T, DeviceTag D, Module M, AdapterMethod Config>
MadeAdapters<T, D> make_adapters(M& model, const Config& config, std::uint64_t seed,
                                 const StoredValues<compute_t<T>, D>& values) {
    validate(config, "adapter settings");
    Config settings = config;
    set_defaults(settings, model);
    std::set<std::string> targets;
    for (const std::string& path : target_paths<T, D>(model, settings)) {
        targets.insert(path);
    }
    TargetLayers<T, D> layers;
    for_each<Linear<T, D>>(model, [&](const std::string& path, const Linear<T, D>& layer) {
        if (targets.contains(path)) {
            layers.emplace_back(path, &layer);
        }
    });
    const auto of_layer = [&](const std::string& path) -> StoredValues<compute_t<T>, D> {
        return
            [&values, path](const std::string& name, const Shape& shape) { return values(path + "." + name, shape); };
    };
    MadeAdapters<T, D> made;
    const SharedTensors<compute_t<T>, D> shared = make_shared_tensors<T, D>(settings, layers, seed, values);
    for (const auto& [path, layer] : layers) {
        Rng rng(seed, dropout_site(path));
        made.linears[path] = make_adapter(settings, path, *layer, rng, of_layer(path), shared);
    }
    if constexpr (Config::adapts_embeddings) {
        for_each<Embedding<T, D>>(model, [&](const std::string& path, const Embedding<T, D>& layer) {
            if (targets.contains(path)) {
                Rng rng(seed, dropout_site(path));
                made.embeddings[path] = make_embedding_adapter(settings, path, layer, rng, of_layer(path));
            }
        });
    }
    return made;
}
template <class T, DeviceTag D, Module M>
MadeAdapters<T, D> make_adapters(M& model, const AdapterConfig& config, std::uint64_t seed,
                                 const StoredValues<compute_t<T>, D>& values) {
    return std::visit([&](const auto& one) { return make_adapters<T, D>(model, one, seed, values); }, config);
}

/// Freezes the model, puts adapters in their places, and makes trainable what the config trains beside them.
template <class T, DeviceTag D, Module M>
void put_adapters(M& model, const MadeAdapters<T, D>& adapters, const AdapterTargets& config) {
    const std::set<std::string> targets = adapters.paths();
    freeze<T, D>(model);
    for_each_parameter<compute_t<T>, D>(model, [&](const std::string& path, auto& field) {
        if (is_trained_beside(config, targets, path)) {
            set_trainable(field, true);
        }
    });
    for_each<Linear<T, D>>(model, [&](const std::string& path, Linear<T, D>& layer) {
        if (const auto found = adapters.linears.find(path); found != adapters.linears.end()) {
            layer.adapter = found->second;
        }
    });
    for_each<Embedding<T, D>>(model, [&](const std::string& path, Embedding<T, D>& layer) {
        if (const auto found = adapters.embeddings.find(path); found != adapters.embeddings.end()) {
            layer.adapter = found->second;
        }
    });
}

/// Freezes the model and attaches adapters to the layers that the config targets, with tensors that `values` gives
/// (undefined ones start anew from `seed`). Returns the paths of the adapted layers. Throws OptionError as
/// make_adapters and check_modules_to_save do, and ShapeError, before anything changes. M may have
/// default_target_modules(), used where the config names none, and is_head(path).
template <class T, DeviceTag D, Module M, class Config>
std::vector<std::string> attach_adapter(M& model, const Config& config, std::uint64_t seed,
                                        const StoredValues<compute_t<T>, D>& values) {
    const AdapterConfig any(config);
    validate(any, "adapter settings");
    check_modules_to_save<T, D>(model, targets(any));
    put_adapters<T, D>(model, make_adapters<T, D>(model, config, seed, values), targets(any));
    return target_paths<T, D>(model, config);
}

/// The same with tensors that start anew.
template <class T, DeviceTag D, Module M, class Config>
std::vector<std::string> attach_adapter(M& model, const Config& config, std::uint64_t seed) {
    return attach_adapter<T, D>(model, config, seed,
                                [](const std::string&, const Shape&) { return Tensor<compute_t<T>, D>(); });
}

/// The same for LoRA.
template <class T, DeviceTag D, Module M>
std::vector<std::string> attach_lora(M& model, const LoraConfig& config, std::uint64_t seed) {
    return attach_adapter<T, D>(model, config, seed);
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
    for (const FieldRef& field : detail::fields_and_self(model)) {
        detail::for_each_adapter_tensor<T, D>(
            field, [&](const std::string&, const auto& values) { counts.all += values.numel(); });
    }
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
