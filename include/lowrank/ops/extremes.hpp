// max and min over one dimension or all, with the places they were found at: argmax and argmin.
#pragma once

#include <cstdint>
#include <limits>

#include "lowrank/backend/cpu/extremes.hpp"
#include "lowrank/ops/gather.hpp"

namespace lowrank {

/// The largest or smallest elements along a dimension, and where they are.
template <class T, DeviceTag D>
struct Extremes {
    Tensor<T, D> values;
    Tensor<std::int32_t, D> indices;
};

namespace detail {

/// Where a contiguous x is largest or smallest along `dim`, which stays with extent 1.
template <class T, DeviceTag D>
Tensor<std::int32_t, D> extreme_at(const char* op, const Tensor<T, D>& x, int dim, bool smallest) {
    const Lines lines(x.shape(), dim);
    if (lines.n < 1 || lines.n > std::numeric_limits<std::int32_t>::max()) {
        throw ShapeError(concat(op, ": dimension ", dim, " of ", x.shape(), ", expected 1 to 2^31 - 1 elements"));
    }
    Tensor<std::int32_t, D> index = Tensor<std::int32_t, D>::empty(with_extent(x.shape(), dim, 1));
    extreme_index(D{}, lines.outer, lines.n, lines.inner, x.data(), smallest, index.mutable_data());
    return index;
}

template <class T, DeviceTag D>
Extremes<T, D> extremes(const char* op, const Tensor<T, D>& input, int dim, bool keepdim, bool smallest) {
    dim = normalize_dim(dim, input.rank(), op);
    const Tensor<T, D> x = contiguous(input);
    const Tensor<std::int32_t, D> index = extreme_at(op, x, dim, smallest);
    const Tensor<T, D> values = take_at(x, dim, index, false);
    return keepdim ? Extremes<T, D>{values, index} : Extremes<T, D>{squeeze(values, dim), squeeze(index, dim)};
}

} // namespace detail

/// The largest elements over the dimension `dim` (negative ones count from the end), which disappears, or stays with
/// extent 1 when `keepdim`, and their indices: the first where several are equal; a NaN is larger than all. The
/// gradient goes to that element alone. Throws ShapeError for a dimension that does not exist or has no elements.
template <class T, DeviceTag D>
Extremes<T, D> max(const Tensor<T, D>& x, int dim, bool keepdim = false) {
    return detail::extremes("max", x, dim, keepdim, false);
}

/// The largest element of all, of shape []. Throws ShapeError when there is none.
template <class T, DeviceTag D>
Tensor<T, D> max(const Tensor<T, D>& x) {
    return max(flatten(x), 0).values;
}

/// The smallest elements over a dimension, as max; a NaN is smaller than all.
template <class T, DeviceTag D>
Extremes<T, D> min(const Tensor<T, D>& x, int dim, bool keepdim = false) {
    return detail::extremes("min", x, dim, keepdim, true);
}

/// The smallest element of all.
template <class T, DeviceTag D>
Tensor<T, D> min(const Tensor<T, D>& x) {
    return min(flatten(x), 0).values;
}

/// The indices that max gives, alone.
template <class T, DeviceTag D>
Tensor<std::int32_t, D> argmax(const Tensor<T, D>& x, int dim, bool keepdim = false) {
    return max(x.detach(), dim, keepdim).indices;
}

/// The indices that min gives, alone.
template <class T, DeviceTag D>
Tensor<std::int32_t, D> argmin(const Tensor<T, D>& x, int dim, bool keepdim = false) {
    return min(x.detach(), dim, keepdim).indices;
}

} // namespace lowrank
