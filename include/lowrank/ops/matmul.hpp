// matmul: products of matrices and of batches of matrices.
#pragma once

#include <cstdint>
#include <span>

#include "lowrank/autograd/record.hpp"
#include "lowrank/backend/cpu/batched_matmul.hpp"
#include "lowrank/ops/broadcast.hpp"
#include "lowrank/ops/views.hpp"

namespace lowrank {

/// y [..., m, n] = a [..., m, k] · b [..., k, n]; the leading dimensions broadcast. Transposed views are read in place.
/// Sums in compute_t<T>. Throws ShapeError for fewer than two dimensions and where shapes do not fit.
template <class T, DeviceTag D>
Tensor<T, D> matmul(const Tensor<T, D>& a, const Tensor<T, D>& b) {
    if (a.rank() < 2 || b.rank() < 2) {
        throw ShapeError(
            concat("matmul: expected two matrices or batches of them: lhs ", a.shape(), ", rhs ", b.shape()));
    }
    const std::int64_t m = a.size(-2), k = a.size(-1), n = b.size(-1);
    if (b.size(-2) != k) {
        throw ShapeError(concat("matmul: inner dimensions differ: lhs ", a.shape(), ", rhs ", b.shape(), " (", k,
                                " vs ", b.size(-2), ")"));
    }
    const auto batch_of = [](const Tensor<T, D>& x) {
        return Shape(std::span(x.shape().begin(), x.shape().end() - 2));
    };
    Shape shape = broadcast(batch_of(a), batch_of(b), "matmul");
    if (a.rank() > 2 && b.rank() == 2 && a.is_contiguous()) { // the batch's rows are those of one matrix
        const Tensor<T, D> y = matmul(reshape(a, {numel(shape) * m, k}), b);
        shape.push_back(m);
        shape.push_back(n);
        return reshape(y, shape);
    }
    Shape a_shape = shape, b_shape = shape;
    for (const auto& [target, rows, columns] :
         {std::tuple(&a_shape, m, k), std::tuple(&b_shape, k, n), std::tuple(&shape, m, n)}) {
        target->push_back(rows);
        target->push_back(columns);
    }
    Tensor<T, D> y = Tensor<T, D>::empty(shape);
    batched_matmul(D{}, shape, k, a.data(), broadcast_strides(a.shape(), a.strides(), a_shape), b.data(),
                   broadcast_strides(b.shape(), b.strides(), b_shape), y.mutable_data());
    const Edge ea = edge(a), eb = edge(b);
    return record(y, ea || eb,
                  [ea, eb, sa = save_if(eb, a), sb = save_if(ea, b), from_a = a.shape(),
                   from_b = b.shape()](const Tensor<T, D>& dy) {
                      if (ea) {
                          ea.add(sum_to(matmul(dy, transpose(sb.get(), -2, -1)), from_a));
                      }
                      if (eb) {
                          eb.add(sum_to(matmul(transpose(sa.get(), -2, -1), dy), from_b));
                      }
                  });
}

} // namespace lowrank
