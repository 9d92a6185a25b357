// cumsum: running sums along one dimension.
#pragma once

#include "lowrank/autograd/record.hpp"
#include "lowrank/backend/cpu/lines.hpp"
#include "lowrank/ops/lines.hpp"
#include "lowrank/ops/views.hpp"

namespace lowrank {

namespace detail {

/// Running sums outside the graph, from the start or, `backwards`, from the end.
template <class T, DeviceTag D>
Tensor<T, D> running_sum(const Tensor<T, D>& x, int dim, bool backwards) {
    const Lines lines(x.shape(), dim);
    Tensor<T, D> y = Tensor<T, D>::empty(x.shape());
    cumulative_sum(D{}, lines.outer, lines.n, lines.inner, x.data(), y.mutable_data(), backwards);
    return y;
}

} // namespace detail

/// y[j] = x[0] + … + x[j] along the dimension `dim` (negative ones count from the end), summed in double. Any layout.
/// Throws ShapeError when there is no such dimension.
template <class T, DeviceTag D>
Tensor<T, D> cumsum(const Tensor<T, D>& input, int dim) {
    dim = normalize_dim(dim, input.rank(), "cumsum");
    const Tensor<T, D> x = contiguous(input);
    const Edge<T, D> ex = edge(x);
    return record(detail::running_sum(x, dim, false), bool(ex),
                  [ex, dim](const Tensor<T, D>& dy) { ex.add(detail::running_sum(contiguous(dy), dim, true)); });
}

} // namespace lowrank
