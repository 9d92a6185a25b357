// Softmax and its logarithm over one dimension.
#pragma once

#include "lowrank/autograd/record.hpp"
#include "lowrank/backend/cpu/softmax.hpp"
#include "lowrank/ops/views.hpp"

namespace lowrank {

namespace detail {

template <class T, DeviceTag D>
Tensor<T, D> softmax_or_log(const Tensor<T, D>& input, int dim, bool logarithm, const char* op) {
    dim = normalize_dim(dim, input.rank(), op);
    const int last = input.rank() - 1;
    if (dim != last) {
        return transpose(softmax_or_log(transpose(input, dim, last), last, logarithm, op), dim, last);
    }
    const Tensor<T, D> x = contiguous(input);
    const std::int64_t n = x.size(-1), rows = n == 0 ? 0 : x.numel() / n;
    Tensor<T, D> y = Tensor<T, D>::empty(x.shape());
    softmax_rows(D{}, rows, n, x.data(), y.mutable_data(), logarithm);
    const Edge<T, D> ex = edge(x);
    return record(y, bool(ex), [ex, sy = save_if(ex, y), rows, n, logarithm](const Tensor<T, D>& dy) {
        Tensor<T, D> dx = Tensor<T, D>::empty(dy.shape());
        softmax_gradient_rows(D{}, rows, n, sy.get().data(), contiguous(dy).data(), dx.mutable_data(), logarithm);
        ex.add(dx);
    });
}

} // namespace detail

/// exp(x) / Σ exp(x) over the dimension `dim` (negative ones count from the end), of x's shape. Any layout.
/// Throws ShapeError when there is no such dimension.
template <class T, DeviceTag D>
Tensor<T, D> softmax(const Tensor<T, D>& x, int dim = -1) {
    return detail::softmax_or_log(x, dim, false, "softmax");
}

/// x − log Σ exp(x) over the dimension `dim`: the logarithm of softmax, exact where softmax itself rounds to zero.
template <class T, DeviceTag D>
Tensor<T, D> log_softmax(const Tensor<T, D>& x, int dim = -1) {
    return detail::softmax_or_log(x, dim, true, "log_softmax");
}

} // namespace lowrank
