// PEFT's adapter directories, in and out: adapter_config.json and adapter_model.safetensors.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "lowrank/adapters/attach.hpp"
#include "lowrank/adapters/peft_config.hpp"
#include "lowrank/io/atomic_file.hpp"
#include "lowrank/io/python_json.hpp"
#include "lowrank/io/safetensors_writer.hpp"
#include "lowrank/io/tensor_file.hpp"
#include "lowrank/io/tensor_source.hpp"

namespace lowrank {

namespace detail {

/// What PEFT puts before every path.
inline constexpr const char* peft_prefix = "base_model.model.";

/// The key of a trained tensor: an adapted layer's own bias is its base layer's.
inline std::string peft_key(const std::string& name, const std::set<std::string>& adapted) {
    const std::size_t dot = name.rfind('.');
    const bool own_bias = name.substr(dot + 1) == "bias" && adapted.contains(name.substr(0, dot));
    return peft_prefix + (own_bias ? name.substr(0, dot) + ".base_layer.bias" : name);
}

/// The keys of JSON objects are written sorted, and the first pattern that matches wins: where sorting would give a
/// layer another value, the patterns become the full paths of the layers.
template <class Value>
void make_order_free(std::vector<std::pair<std::string, Value>>& patterns, Value fallback,
                     const std::set<std::string>& paths) {
    std::vector<std::pair<std::string, Value>> sorted = patterns, by_path;
    std::sort(sorted.begin(), sorted.end());
    bool same = true;
    for (const std::string& path : paths) {
        by_path.emplace_back(path, pattern_value(patterns, path, fallback));
        same = same && pattern_value(sorted, path, fallback) == by_path.back().second;
    }
    if (!same) {
        patterns = by_path;
    }
}

template <class T, DeviceTag D, Module M>
std::set<std::string> adapted_layers(M& model) {
    std::set<std::string> paths;
    for_each<Linear<T, D>>(model, [&](const std::string& path, Linear<T, D>& layer) {
        if (layer.adapter) {
            paths.insert(path);
        }
    });
    return paths;
}

} // namespace detail

/// Attaches the adapter that PEFT or this library saved in `directory` to a model, ready for use and for further
/// training; returns its settings. `adjust(config)` may change settings that the file does not fix, such as the
/// dropout. Throws FileError, naming file and key, for targets that the model does not have, missing and unexpected
/// tensors, wrong shapes and types; the model is of no use then.
template <class T, DeviceTag D, Module M, class Adjust>
LoraConfig load_adapter(M& model, const std::filesystem::path& directory, const Adjust& adjust) {
    using C = compute_t<T>;
    LoraConfig config = read_lora_config(directory);
    adjust(config);
    const std::string path = (directory / "adapter_model.safetensors").string();
    const SafetensorsFile file = SafetensorsFile::open(path);
    std::set<std::string> used;
    const auto load = [&](const std::string& key, const Shape& shape) {
        used.insert(key);
        return load_values<C, D>(file.at(key), shape);
    };
    try {
        check_modules_to_save<T, D>(model, config);
        target_paths<T, D>(model, config);
    } catch (const OptionError& error) {
        throw FileError(concat((directory / "adapter_config.json").string(), ": ", error.what()));
    }
    attach_lora<T, D>(model, config, 0, [&](const std::string& layer_path, const Linear<T, D>& layer) {
        const std::string key = detail::peft_prefix + layer_path + ".";
        const std::int64_t r = rank_at(config, layer_path), out = layer.weight.out(), in = layer.weight.in();
        LoraValues<C, D> values;
        values.a = load(key + "lora_A.weight", {r, in});
        values.b = load(key + "lora_B.weight", {out, r});
        if (config.lora_bias) {
            values.b_bias = load(key + "lora_B.bias", {out});
        }
        if (config.use_dora) {
            values.magnitude = load(key + "lora_magnitude_vector", {out});
        }
        return values;
    });
    const std::set<std::string> adapted = detail::adapted_layers<T, D>(model);
    for_each_parameter<compute_t<T>, D>(model, [&]<class Field>(const std::string& name, Field& field) {
        const Tensor<C, D> trained = trained_values(field);
        if (!trained.defined()) {
            return;
        }
        const Tensor<C, D> loaded = leaf(load(detail::peft_key(name, adapted), trained.shape()));
        if constexpr (std::is_same_v<Field, Tensor<C, D>>) {
            field = loaded;
        } else {
            field = WeightSlot<C, D>(loaded, field.orientation());
        }
    });
    for (const std::string& key : file.keys()) {
        if (!used.contains(key)) {
            throw FileError(
                concat(path, ": tensor '", key, "' is unexpected: adapter_config.json adapts no such layer"));
        }
    }
    return config;
}

template <class T, DeviceTag D, Module M>
LoraConfig load_adapter(M& model, const std::filesystem::path& directory) {
    return load_adapter<T, D>(model, directory, [](LoraConfig&) {});
}

/// Writes everything that is trained as an adapter directory that PEFT opens. Throws NumericError for a tensor with a
/// value that is not finite, before anything is written, and FileError.
template <class T, DeviceTag D, Module M>
void save_adapter(M& model, const LoraConfig& config, const std::filesystem::path& directory) {
    const std::set<std::string> adapted = detail::adapted_layers<T, D>(model);
    std::vector<TensorSource> tensors;
    for (const NamedTensor<compute_t<T>, D>& tensor : trainable_tensors<T, D>(model)) {
        require_finite(tensor.name, tensor.values);
        tensors.push_back(tensor_source(detail::peft_key(tensor.name, adapted), tensor.values));
    }
    bool fan_in_fan_out = false;
    for_each<Linear<T, D>>(model, [&](const std::string&, Linear<T, D>& layer) {
        fan_in_fan_out = fan_in_fan_out || (layer.adapter && layer.weight.orientation() == Orientation::in_out);
    });
    LoraConfig saved = config;
    detail::make_order_free(saved.rank_pattern, saved.r, adapted);
    detail::make_order_free(saved.alpha_pattern, saved.lora_alpha, adapted);
    std::filesystem::create_directories(directory);
    write_safetensors(directory / "adapter_model.safetensors", tensors, {{"format", "pt"}});
    write_atomically(directory / "adapter_config.json",
                     to_python_json(peft_config(saved, fan_in_fan_out, detail::default_target_modules(model))));
}

} // namespace lowrank
