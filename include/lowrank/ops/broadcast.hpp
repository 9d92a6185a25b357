// broadcast_to and sum_to: repeating a tensor to a larger shape by NumPy's rule, and the sum that undoes it.
#pragma once

#include <algorithm>

#include "lowrank/backend/cpu/reduce.hpp"
#include "lowrank/ops/views.hpp"

namespace lowrank {

namespace detail {

/// `shape` with ones in front up to `rank` dimensions.
inline Shape with_rank(const Shape& shape, int rank) {
    Shape out;
    for (int i = 0; i < rank; ++i) {
        out.push_back(i < rank - shape.rank() ? 1 : shape[i - (rank - shape.rank())]);
    }
    return out;
}

/// scale · the sum of x over the dimensions by which `shape` broadcasts to x's, outside the graph.
template <class T, DeviceTag D>
Tensor<T, D> scaled_sum_to(const Tensor<T, D>& x, const Shape& shape, double scale) {
    Tensor<T, D> y = Tensor<T, D>::empty(shape);
    sum_to_shape(D{}, x.shape(), x.data(), x.strides(), with_rank(shape, x.rank()), y.mutable_data(), scale);
    return y;
}

} // namespace detail

template <class T, DeviceTag D>
Tensor<T, D> sum_to(const Tensor<T, D>& x, const Shape& shape);

/// A view of x repeated to `shape`: x's dimensions align with the last ones, and those of extent 1 repeat. Throws
/// ShapeError when x's shape does not broadcast to `shape`.
template <class T, DeviceTag D>
Tensor<T, D> broadcast_to(const Tensor<T, D>& x, const Shape& shape) {
    if (x.shape() == shape) {
        return x;
    }
    if (broadcast(x.shape(), shape, "broadcast_to") != shape) {
        throw ShapeError(concat("broadcast_to: ", x.shape(), " does not repeat to ", shape));
    }
    const auto ex = edge(x);
    return record(x.as_strided(shape, broadcast_strides(x.shape(), x.strides(), shape)), bool(ex),
                  [ex, from = x.shape()](const Tensor<T, D>& dy) { ex.add(sum_to(dy, from)); });
}

/// The sum of x over the dimensions by which `shape` broadcasts to x's shape: the adjoint of broadcast_to.
/// Summed in double, in an order fixed by the shape. Throws ShapeError when `shape` does not broadcast to x's.
template <class T, DeviceTag D>
Tensor<T, D> sum_to(const Tensor<T, D>& x, const Shape& shape) {
    if (x.shape() == shape) {
        return x;
    }
    if (broadcast(shape, x.shape(), "sum_to") != x.shape()) {
        throw ShapeError(concat("sum_to: ", shape, " does not repeat to ", x.shape()));
    }
    const auto ex = edge(x);
    return record(detail::scaled_sum_to(x, shape, 1.0), bool(ex),
                  [ex, from = x.shape()](const Tensor<T, D>& dy) { ex.add(broadcast_to(dy, from)); });
}

} // namespace lowrank
