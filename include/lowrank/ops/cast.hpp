// cast: the same values in another element type.
#pragma once

#include "lowrank/autograd/record.hpp"

namespace lowrank {

/// y = x as U, rounded to nearest; x itself when U is its type. Its gradient is cast back. Any layout; the result is
/// contiguous unless it is x.
template <class U, class T, DeviceTag D>
Tensor<U, D> cast(const Tensor<T, D>& x) {
    if constexpr (std::same_as<U, T>) {
        return x;
    } else {
        Tensor<U, D> y = Tensor<U, D>::empty(x.shape());
        copy_strided(D{}, x.shape(), x.data(), x.strides(), y.mutable_data());
        const auto ex = edge(x);
        return record(y, bool(ex), [ex](const Tensor<U, D>& dy) { ex.add(cast<T>(dy)); });
    }
}

} // namespace lowrank
