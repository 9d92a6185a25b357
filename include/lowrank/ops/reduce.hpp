// sum and mean over all or some dimensions, in double and in an order fixed by the shape.
#pragma once

#include <utility>

#include "lowrank/ops/broadcast.hpp"

namespace lowrank {

namespace detail {

/// The sum of x over `dims`, or their mean.
template <class T, DeviceTag D>
Tensor<T, D> sum_or_mean(const Tensor<T, D>& x, const Extents& dims, bool keepdim, bool mean, const char* op) {
    Shape ones = x.shape(), without;
    bool reduced[max_rank] = {};
    double count = 1;
    for (const std::int64_t d : dims) {
        const int dim = normalize_dim(static_cast<int>(d), x.rank(), op);
        if (std::exchange(reduced[dim], true)) {
            throw ShapeError(lowrank::concat(op, ": dimension ", d, " occurs twice in ", dims));
        }
        count *= static_cast<double>(x.shape()[dim]);
        ones[dim] = 1;
    }
    for (int i = 0; i < x.rank(); ++i) {
        if (!reduced[i]) {
            without.push_back(x.shape()[i]);
        }
    }
    const double scale = mean ? 1.0 / count : 1.0; // of no elements: NaN, as in NumPy and torch
    Tensor<T, D> y = Tensor<T, D>::empty(keepdim ? ones : without);
    sum_to_shape(D{}, x.shape(), x.data(), x.strides(), ones, y.mutable_data(), scale);
    const auto ex = edge(x);
    return record(y, bool(ex), [ex, ones, scale, from = x.shape()](const Tensor<T, D>& dy) {
        Tensor<T, D> each = reshape(dy, ones);
        ex.add(broadcast_to(scale == 1.0 ? each : scaled_sum_to(each, ones, scale), from));
    });
}

inline Extents all_dims(int rank) {
    Extents dims;
    for (int i = 0; i < rank; ++i) {
        dims.push_back(i);
    }
    return dims;
}

} // namespace detail

/// The sum over the dimensions `dims` (negative ones count from the end), which disappear, or stay with extent 1 when
/// `keepdim`. Throws ShapeError for a dimension that does not exist or occurs twice.
template <class T, DeviceTag D>
Tensor<T, D> sum(const Tensor<T, D>& x, const Extents& dims, bool keepdim = false) {
    return detail::sum_or_mean(x, dims, keepdim, false, "sum");
}

/// The sum of all elements, of shape [].
template <class T, DeviceTag D>
Tensor<T, D> sum(const Tensor<T, D>& x) {
    return sum(x, detail::all_dims(x.rank()));
}

/// The mean over the dimensions `dims`, as for sum; of no elements NaN.
template <class T, DeviceTag D>
Tensor<T, D> mean(const Tensor<T, D>& x, const Extents& dims, bool keepdim = false) {
    return detail::sum_or_mean(x, dims, keepdim, true, "mean");
}

/// The mean of all elements, of shape [].
template <class T, DeviceTag D>
Tensor<T, D> mean(const Tensor<T, D>& x) {
    return mean(x, detail::all_dims(x.rank()));
}

} // namespace lowrank
