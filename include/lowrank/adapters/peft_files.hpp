// PEFT's adapter directories, in and out: adapter_config.json and adapter_model.safetensors.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <variant>
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

/// The key of a stored value (see StoredValues).
inline std::string peft_key(const std::string& name) {
    return name.starts_with("base_model.") ? name : peft_prefix + name;
}

/// The key of a trained tensor: an adapted layer's own bias is its base layer's.
inline std::string peft_key(const std::string& name, const std::set<std::string>& adapted) {
    const std::size_t dot = name.rfind('.');
    const bool own_bias = name.substr(dot + 1) == "bias" && adapted.contains(name.substr(0, dot));
    return peft_key(own_bias ? name.substr(0, dot) + ".base_layer.bias" : name);
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

/// Settings that say the same of the layers at `paths` in a file as in a program.
inline void make_writable(AdapterTargets&, const std::set<std::string>&) {}
inline void make_writable(LoraConfig& config, const std::set<std::string>& paths) {
    make_order_free(config.rank_pattern, config.r, paths);
    make_order_free(config.alpha_pattern, config.lora_alpha, paths);
}
/// PEFT reads no feedforward_modules that are not among the targets, which its own defaults need not be.
inline void make_writable(Ia3Config& config, const std::set<std::string>& paths) {
    try {
        validate(config, "");
    } catch (const OptionError&) {
        std::vector<std::string> feedforward;
        std::copy_if(paths.begin(), paths.end(), std::back_inserter(feedforward),
                     [&](const std::string& path) { return is_feedforward(config, path); });
        config.target_modules = std::vector<std::string>(paths.begin(), paths.end());
        config.feedforward_modules = feedforward;
    }
}

template <class T, DeviceTag D, Module M>
std::set<std::string> adapted_layers(M& model) {
    std::set<std::string> paths;
    for (const FieldRef& field : fields_of(model)) {
        const auto* linear = field.get<Linear<T, D>>();
        const auto* embedding = field.get<Embedding<T, D>>();
        if ((linear && linear->adapter) || (embedding && embedding->adapter)) {
            paths.insert(field.path());
        }
    }
    return paths;
}

/// Throws FileError where the tensors are missing, or are in a format that runs code when it is read.
inline void require_safetensors(const std::filesystem::path& directory) {
    if (!std::filesystem::exists(directory / "adapter_model.safetensors") &&
        std::filesystem::exists(directory / "adapter_model.bin")) {
        throw FileError(concat(
            (directory / "adapter_model.bin").string(),
            ": found a pickle of PyTorch, expected adapter_model.safetensors: reading a pickle runs the code in it. "
            "Convert it in Python: from safetensors.torch import save_file; import torch; "
            "save_file(torch.load('adapter_model.bin', weights_only=True), 'adapter_model.safetensors')"));
    }
}

/// With bias "all" PEFT writes the biases of modules_to_save a second time, and those that they replace.
inline bool is_second_bias(const AdapterTargets& config, const std::string& key) {
    return config.bias == BiasMode::all &&
           (key.ends_with(".modules_to_save.bias") || key.ends_with(".original_module.bias"));
}

/// What a file gives a parameter of the base that is trained beside the adapters.
template <class C, DeviceTag D>
void set_trained(Tensor<C, D>& field, const Tensor<C, D>& values) {
    field = leaf(values);
}
template <class C, DeviceTag D>
void set_trained(WeightSlot<C, D>& field, const Tensor<C, D>& values) {
    field = WeightSlot<C, D>(leaf(values), field.orientation());
}
template <class C, DeviceTag D>
Shape stored_shape(const Tensor<C, D>& field) {
    return field.shape();
}
template <class C, DeviceTag D>
Shape stored_shape(const WeightSlot<C, D>& field) {
    return field.stored_shape();
}

} // namespace detail

/// Attaches the adapter that PEFT or this library saved in `directory` to a model, ready for use and for further
/// training; returns its settings. `adjust(config)` may change settings that the file does not fix, such as the
/// dropout. Throws FileError, naming file and key, for targets that the model does not have, missing and unexpected
/// tensors, wrong shapes and types, before the model changes.
template <class T, DeviceTag D, Module M, class Adjust>
AdapterConfig load_adapter(M& model, const std::filesystem::path& directory, const Adjust& adjust) {
    using C = compute_t<T>;
    AdapterConfig config = read_adapter_config(directory);
    adjust(config);
    detail::require_safetensors(directory);
    const std::string path = (directory / "adapter_model.safetensors").string();
    const SafetensorsFile file = SafetensorsFile::open(path);
    std::set<std::string> used;
    const auto load = [&](const std::string& key, const Shape& shape) {
        used.insert(key);
        return load_values<C, D>(file.at(key), shape);
    };
    MadeAdapters<T, D> adapters;
    try {
        check_modules_to_save<T, D>(model, targets(config));
        adapters = make_adapters<T, D>(model, config, 0, [&](const std::string& name, const Shape& shape) {
            return load(detail::peft_key(name), shape);
        });
    } catch (const OptionError& error) {
        throw FileError(concat((directory / "adapter_config.json").string(), ": ", error.what()));
    } catch (const FileError& error) {
        const std::string& base = targets(config).base_model_name_or_path;
        throw base.empty() ? error
                           : FileError(concat(error.what(), " (the adapter was made for the model '", base, "')"));
    }
    const std::set<std::string> adapted = adapters.paths();
    std::map<std::string, Tensor<C, D>> beside;
    for_each_parameter<C, D>(model, [&](const std::string& name, const auto& field) {
        if (field.defined() && is_trained_beside(targets(config), adapted, name)) {
            beside[name] = load(detail::peft_key(name, adapted), detail::stored_shape(field));
        }
    });
    for (const std::string& key : file.keys()) {
        if (!used.contains(key) && !detail::is_second_bias(targets(config), key)) {
            throw FileError(
                concat(path, ": tensor '", key, "' is unexpected: adapter_config.json adapts no such layer"));
        }
    }
    put_adapters<T, D>(model, adapters, targets(config));
    for_each_parameter<C, D>(model, [&](const std::string& name, auto& field) {
        if (const auto found = beside.find(name); found != beside.end()) {
            detail::set_trained(field, found->second);
        }
    });
    return config;
}

template <class T, DeviceTag D, Module M>
AdapterConfig load_adapter(M& model, const std::filesystem::path& directory) {
    return load_adapter<T, D>(model, directory, [](AdapterConfig&) {});
}

/// Most methods save their tensors as they are.
template <class T, DeviceTag D, Module M, class Saved>
void prepare_saved(AdapterTargets&, M&, const Saved&) {}

/// Writes the adapters of a model and what is trained beside them as an adapter directory that PEFT opens. Throws
/// NumericError for a tensor with a value that is not finite, before anything is written, and FileError.
template <class T, DeviceTag D, Module M>
void save_adapter(M& model, const AdapterConfig& config, const std::filesystem::path& directory) {
    using C = compute_t<T>;
    const std::set<std::string> adapted = detail::adapted_layers<T, D>(model);
    std::map<std::string, Tensor<C, D>> saved;
    const auto add = [&](const std::string& name, const std::string& key, const Tensor<C, D>& values) {
        if (saved.emplace(key, values).second) { // what layers share comes once for each
            require_finite(name, values);
        }
    };
    bool fan_in_fan_out = false;
    for (const FieldRef& field : fields_of(model)) {
        detail::for_each_adapter_tensor<T, D>(field, [&](const std::string& name, const Tensor<C, D>& values) {
            add(name, detail::peft_key(name), values);
        });
        if (const auto* layer = field.get<Linear<T, D>>(); layer != nullptr && layer->adapter) {
            layer->adapter->shared_tensors(
                [&](const std::string& key, Tensor<C, D>& values) { add(key, key, values); });
            fan_in_fan_out = fan_in_fan_out || layer->weight.orientation() == Orientation::in_out;
        }
    }
    for_each_parameter<C, D>(model, [&](const std::string& name, const auto& field) {
        if (const Tensor<C, D> values = trained_values(field); values.defined()) {
            add(name, detail::peft_key(name, adapted), values);
        }
    });
    AdapterConfig written = config;
    set_defaults(written, model);
    const auto of_name = [&](const std::string& name) -> Tensor<C, D>& { return saved.at(detail::peft_key(name)); };
    std::visit(
        [&](auto& one) {
            detail::make_writable(one, adapted);
            prepare_saved<T, D>(one, model, of_name);
        },
        written);
    std::vector<TensorSource> tensors;
    for (const auto& [key, values] : saved) {
        tensors.push_back(tensor_source(key, values));
    }
    std::filesystem::create_directories(directory);
    write_safetensors(directory / "adapter_model.safetensors", tensors, {{"format", "pt"}});
    write_atomically(directory / "adapter_config.json", to_python_json(peft_config(written, fan_in_fan_out)));
}

} // namespace lowrank
