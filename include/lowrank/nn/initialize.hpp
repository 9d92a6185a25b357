// Initial values of parameters: random or constant tensors that are leaves of the graph.
#pragma once

#include <vector>

#include "lowrank/autograd/record.hpp"
#include "lowrank/core/random.hpp"

namespace lowrank {

/// A trained tensor of values drawn evenly from [-bound, bound).
template <class C, DeviceTag D = Cpu>
Tensor<C, D> uniform_parameter(const Shape& shape, double bound, Rng& rng) {
    std::vector<C> values(static_cast<std::size_t>(numel(shape)));
    for (C& value : values) {
        value = static_cast<C>(rng.uniform(-bound, bound));
    }
    return leaf(Tensor<C, D>::from(values, shape));
}

/// A trained tensor of normal values with mean 0.
template <class C, DeviceTag D = Cpu>
Tensor<C, D> normal_parameter(const Shape& shape, double deviation, Rng& rng) {
    std::vector<C> values(static_cast<std::size_t>(numel(shape)));
    for (C& value : values) {
        value = static_cast<C>(deviation * rng.normal());
    }
    return leaf(Tensor<C, D>::from(values, shape));
}

/// A trained tensor of one value.
template <class C, DeviceTag D = Cpu>
Tensor<C, D> constant_parameter(const Shape& shape, double value) {
    return leaf(Tensor<C, D>::full(shape, static_cast<C>(value)));
}

} // namespace lowrank
