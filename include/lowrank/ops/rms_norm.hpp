// RMS norm: Zhang and Sennrich, "Root mean square layer normalization", 2019.
#pragma once

#include <cstdint>

#include "lowrank/autograd/record.hpp"
#include "lowrank/backend/cpu/rms_norm.hpp"
#include "lowrank/ops/views.hpp"

namespace lowrank {

/// y = x / √(mean of x² + epsilon) · weight over the last dimension, for x [.., n] and weight [n]: LLaMA's norm,
/// computed in compute_t<T> and rounded once. One number a row is kept for backward, and x itself. Throws ShapeError
/// where shapes do not fit.
template <class T, DeviceTag D>
Tensor<T, D> rms_norm(const Tensor<T, D>& input, const Tensor<compute_t<T>, D>& weight, double epsilon) {
    using C = compute_t<T>;
    if (input.rank() < 1 || weight.shape() != Shape{input.size(-1)}) {
        throw ShapeError(concat("rms_norm: expected a weight of the input's last extent: input ", input.shape(),
                                ", weight ", weight.shape()));
    }
    const Tensor<T, D> x = contiguous(input);
    const Tensor<C, D> gain = contiguous(weight);
    const std::int64_t n = x.size(-1), rows = n > 0 ? x.numel() / n : 0;
    Tensor<T, D> y = Tensor<T, D>::empty(x.shape());
    Tensor<C, D> rstd = Tensor<C, D>::empty({rows});
    rms_norm_forward(D{}, rows, n, x.data(), gain.data(), epsilon, y.mutable_data(), rstd.mutable_data());
    const Edge ex = edge(x);
    const Edge ew = edge(gain);
    const auto sx = save_if(ex || ew, x);
    const auto sw = save(gain);
    const Tensor<T, D> result = record(y, ex || ew, [=](const Tensor<T, D>& upstream) {
        const Tensor<T, D> dy = contiguous(upstream);
        if (ex) {
            Tensor<T, D> dx = Tensor<T, D>::empty(dy.shape());
            rms_norm_backward(D{}, rows, n, sx.get().data(), sw.get().data(), rstd.data(), dy.data(),
                              dx.mutable_data());
            ex.add(dx);
        }
        if (ew) {
            Tensor<C, D> dw = Tensor<C, D>::empty({n});
            rms_norm_weight_backward(D{}, rows, n, sx.get().data(), rstd.data(), dy.data(), dw.mutable_data());
            ew.add(dw);
        }
    });
    made_again_by(result, [=] {
        const Tensor<T, D> from = sx.get();
        Tensor<T, D> again = Tensor<T, D>::empty(from.shape());
        rms_norm_forward(D{}, rows, n, from.data(), sw.get().data(), epsilon, again.mutable_data(),
                         Tensor<C, D>::empty({rows}).mutable_data());
        return again;
    });
    return result;
}

} // namespace lowrank
