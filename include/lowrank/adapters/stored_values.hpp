// Where a new adapter's tensors come from: a file's values, or nothing, which starts them anew.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/nn/linear.hpp"

namespace lowrank {

/// values(name, shape): the stored tensor of that name and shape, or an undefined one, which the method draws anew. A
/// name is an adapter's within its layer ("lora_A.weight"), or in a model's values the path of the layer and that
/// ("….c_attn.lora_A.weight"); tensors that several layers share have their full key ("base_model.vera_A").
template <class C, DeviceTag D>
using StoredValues = std::function<Tensor<C, D>(const std::string& name, const Shape& shape)>;

/// Tensors that the adapters of several layers share, by name.
template <class C, DeviceTag D>
using SharedTensors = std::map<std::string, Tensor<C, D>>;

/// The linear layers that a config adapts, with their paths.
template <class T, DeviceTag D>
using TargetLayers = std::vector<std::pair<std::string, const Linear<T, D>*>>;

namespace detail {

/// A stored tensor; checked, for whoever gives it may be wrong. Throws ShapeError.
template <class C, DeviceTag D>
Tensor<C, D> stored(const StoredValues<C, D>& values, const std::string& name, const Shape& shape) {
    const Tensor<C, D> tensor = values(name, shape);
    if (tensor.defined() && tensor.shape() != shape) {
        throw ShapeError(concat("adapter: ", name, ": found shape ", tensor.shape(), ", expected ", shape));
    }
    return tensor;
}

/// The same, or what `start()` gives where none is stored.
template <class C, DeviceTag D, class Start>
Tensor<C, D> stored_or(const StoredValues<C, D>& values, const std::string& name, const Shape& shape,
                       const Start& start) {
    const Tensor<C, D> tensor = stored(values, name, shape);
    return tensor.defined() ? tensor : start();
}

} // namespace detail

} // namespace lowrank
