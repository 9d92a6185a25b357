// Initial values of parameters: random or constant tensors that are leaves of the graph.
#pragma once

#include <vector>

#include "lowrank/autograd/record.hpp"
#include "lowrank/core/random.hpp"

namespace lowrank {

namespace detail {

/// A tensor whose values `draw()` gives, one after the other.
template <class C, DeviceTag D, class Draw>
Tensor<C, D> drawn(const Shape& shape, const Draw& draw) {
    std::vector<C> values(static_cast<std::size_t>(numel(shape)));
    for (C& value : values) {
        value = static_cast<C>(draw());
    }
    return Tensor<C, D>::from(values, shape);
}

} // namespace detail

/// A trained tensor of values drawn evenly from [-bound, bound).
template <class C, DeviceTag D = Cpu>
Tensor<C, D> uniform_parameter(const Shape& shape, double bound, Rng& rng) {
    return leaf(detail::drawn<C, D>(shape, [&] { return rng.uniform(-bound, bound); }));
}

/// A trained tensor of normal values with mean 0.
template <class C, DeviceTag D = Cpu>
Tensor<C, D> normal_parameter(const Shape& shape, double deviation, Rng& rng) {
    return leaf(detail::drawn<C, D>(shape, [&] { return deviation * rng.normal(); }));
}

/// A trained tensor of one value.
template <class C, DeviceTag D = Cpu>
Tensor<C, D> constant_parameter(const Shape& shape, double value) {
    return leaf(Tensor<C, D>::full(shape, static_cast<C>(value)));
}

} // namespace lowrank
