// log_sum_exp: the logarithm of a sum of exponentials over one dimension, without overflow.
#pragma once

#include "lowrank/autograd/record.hpp"
#include "lowrank/backend/cpu/log_sum_exp.hpp"
#include "lowrank/ops/cast.hpp"
#include "lowrank/ops/views.hpp"

namespace lowrank {

/// log Σ exp(x) over the dimension `dim` (negative ones count from the end), which disappears, or stays with extent 1
/// when `keepdim`. -infinity of no elements. Only x and one number a row are kept. Any layout. Throws ShapeError when
/// there is no such dimension.
template <class T, DeviceTag D>
Tensor<T, D> log_sum_exp(const Tensor<T, D>& input, int dim = -1, bool keepdim = false) {
    dim = normalize_dim(dim, input.rank(), "log_sum_exp");
    const int last = input.rank() - 1;
    const Tensor<T, D> x = contiguous(dim == last ? input : transpose(input, dim, last));
    Shape shape = x.shape();
    shape[last] = 1;
    const std::int64_t n = x.size(-1), rows = numel(shape);
    Tensor<double, D> sums = Tensor<double, D>::empty(shape);
    log_sum_exp_rows(D{}, rows, n, x.data(), sums.mutable_data());
    const Edge<T, D> ex = edge(x);
    const Tensor<T, D> y = record(cast<T>(sums), bool(ex),
                                  [ex, rows, n, sx = save_if(ex, x), kept = save_if(ex, sums)](const Tensor<T, D>& dy) {
                                      Tensor<T, D> dx = Tensor<T, D>::empty(sx.get().shape());
                                      log_sum_exp_backward(D{}, rows, n, sx.get().data(), kept.get().data(),
                                                           contiguous(dy).data(), dx.mutable_data());
                                      ex.add(dx);
                                  });
    const Tensor<T, D> in_place = dim == last ? y : transpose(y, dim, last);
    return keepdim ? in_place : squeeze(in_place, dim);
}

} // namespace lowrank
