// A model's parameters: those that are trained, by name, and all of them as a table.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lowrank/nn/embedding.hpp"
#include "lowrank/nn/linear.hpp"
#include "lowrank/nn/module.hpp"

namespace lowrank {

namespace detail {

/// The fields inside a model, and the model itself first, which may be a single layer.
template <Module M>
std::vector<FieldRef> fields_and_self(M& model) {
    std::vector<FieldRef> fields = fields_of(model);
    fields.insert(fields.begin(), FieldRef("", model));
    return fields;
}

/// Calls `visit(name, values)` for each tensor of a field's adapter, where it is a layer that has one.
template <class T, DeviceTag D, class Visit>
void for_each_adapter_tensor(const FieldRef& field, const Visit& visit) {
    const auto visit_with_path = [&](const std::string& name, Tensor<compute_t<T>, D>& values) {
        visit(join_path(field.path(), name), values);
    };
    if (const auto* layer = field.get<Linear<T, D>>(); layer != nullptr && layer->adapter) {
        layer->adapter->parameters(visit_with_path);
    }
    if (const auto* layer = field.get<Embedding<T, D>>(); layer != nullptr && layer->adapter) {
        layer->adapter->parameters(visit_with_path);
    }
}

} // namespace detail

/// A trained tensor and its name: the path of a base parameter, or of an adapter's ("….c_attn.lora_A.weight").
template <class C, DeviceTag D>
struct NamedTensor {
    std::string name;
    Tensor<C, D> values;
};

/// Everything that is trained, base parameters and adapters, in the order of the model's fields. A matrix shared by
/// several slots appears once.
template <class T, DeviceTag D, Module M>
std::vector<NamedTensor<compute_t<T>, D>> trainable_tensors(M& model) {
    using C = compute_t<T>;
    std::vector<NamedTensor<C, D>> tensors;
    for (const FieldRef& field : detail::fields_and_self(model)) {
        detail::for_each_adapter_tensor<T, D>(field, [&](const std::string& name, const Tensor<C, D>& values) {
            if (values.node()) {
                tensors.push_back({name, values});
            }
        });
        const auto* slot = field.get<WeightSlot<C, D>>();
        const auto* vector = field.get<Tensor<C, D>>();
        const Tensor<C, D> values = slot ? trained_values(*slot) : vector ? trained_values(*vector) : Tensor<C, D>();
        if (values.defined()) {
            tensors.push_back({field.path(), values});
        }
    }
    return tensors;
}

/// Only the values, for an optimizer: AdamW<C>({ParameterGroup<C>(trained_parameters<T, D>(model))}).
template <class T, DeviceTag D = Cpu, Module M>
std::vector<Tensor<compute_t<T>, D>> trained_parameters(M& model) {
    std::vector<Tensor<compute_t<T>, D>> values;
    for (const NamedTensor<compute_t<T>, D>& tensor : trainable_tensors<T, D>(model)) {
        values.push_back(tensor.values);
    }
    return values;
}

/// A line for each parameter: its path, its shape, and what it is: "trained", "constant", or how a frozen matrix is
/// stored ("BF16"); a layer's adapter comes before the layer's own parameters.
template <class T, DeviceTag D = Cpu, Module M>
std::string parameter_table(M& model) {
    using C = compute_t<T>;
    std::string text;
    const auto add = [&](const std::string& path, const Shape& shape, const std::string& what) {
        text += concat(path, "  ", shape, "  ", what, "\n");
    };
    const auto add_values = [&](const std::string& path, const Tensor<C, D>& values) {
        if (values.defined()) {
            add(path, values.shape(), values.node() ? "trained" : "constant");
        }
    };
    for (const FieldRef& field : detail::fields_and_self(model)) {
        detail::for_each_adapter_tensor<T, D>(field, add_values);
        if (const auto* values = field.get<Tensor<C, D>>()) {
            add_values(field.path(), *values);
        } else if (const auto* slot = field.get<WeightSlot<C, D>>()) {
            if (slot->frozen()) {
                add(field.path(), slot->frozen()->stored_shape(), slot->frozen()->storage());
            } else {
                add_values(field.path(), slot->values());
            }
        }
    }
    return text;
}

} // namespace lowrank
