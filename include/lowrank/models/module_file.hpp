// A module of one's own in a safetensors file: each parameter under its path.
#pragma once

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "lowrank/io/safetensors.hpp"
#include "lowrank/io/safetensors_writer.hpp"
#include "lowrank/io/tensor_file.hpp"
#include "lowrank/io/tensor_source.hpp"
#include "lowrank/nn/module.hpp"

namespace lowrank {

/// Writes every parameter of a module, not its adapters, to a safetensors file that torch's load_state_dict reads when
/// the names are the same. A matrix keeps its storage's type where that is a plain one. Throws FileError; the file
/// appears complete or not at all.
template <class T, DeviceTag D = Cpu, Module M>
void save_module(M& module, const std::filesystem::path& path) {
    std::vector<TensorSource> tensors;
    for_each_parameter<compute_t<T>, D>(module, [&](const std::string& name, const auto& field) {
        if (field.defined()) {
            tensors.push_back(tensor_source(name, field));
        }
    });
    write_safetensors(path, tensors, {{"format", "pt"}});
}

/// Reads the parameters of a module of the same fields and shapes. What was trained before stays trained, with the
/// file's values. Throws FileError, naming the key, for a tensor that is missing, unexpected or of another shape.
template <class T, DeviceTag D = Cpu, Module M>
void load_module(M& module, const std::filesystem::path& path) {
    using C = compute_t<T>;
    const SafetensorsFile file = SafetensorsFile::open(path.string());
    std::vector<std::string> used;
    const auto values_at = [&](const std::string& name, const Tensor<C, D>& old) {
        used.push_back(name);
        const Tensor<C, D> values = load_values<C, D>(file.at(name), old.shape());
        return old.node() ? leaf(values) : values;
    };
    for (const FieldRef& field : fields_of(module)) {
        if (auto* slot = field.get<WeightSlot<C, D>>(); slot != nullptr && slot->defined()) {
            if (slot->frozen()) {
                used.push_back(field.path());
                *slot = load_weight<D>(file.at(field.path()), slot->out(), slot->in(), slot->orientation());
            } else {
                *slot = WeightSlot<C, D>(values_at(field.path(), slot->values()), slot->orientation());
            }
        } else if (auto* values = field.get<Tensor<C, D>>(); values != nullptr && values->defined()) {
            *values = values_at(field.path(), *values);
        }
    }
    std::sort(used.begin(), used.end());
    for (const std::string& key : file.keys()) {
        if (!std::binary_search(used.begin(), used.end(), key)) {
            throw FileError(
                concat(path.string(), ": tensor '", key, "' is unexpected: the module has no such parameter"));
        }
    }
}

} // namespace lowrank
