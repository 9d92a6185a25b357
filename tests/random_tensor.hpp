// Tensors of normal random values, for tests.
#pragma once

#include <vector>

#include "lowrank/core/random.hpp"
#include "lowrank/tensor/tensor.hpp"

namespace lowrank::testing {

template <class T>
Tensor<T> random_tensor(const Shape& shape, Rng& rng) {
    std::vector<T> values(static_cast<std::size_t>(numel(shape)));
    for (T& value : values) {
        value = static_cast<T>(static_cast<compute_t<T>>(rng.normal()));
    }
    return Tensor<T>::from(values, shape);
}

} // namespace lowrank::testing
