// Layer norm: Ba, Kiros and Hinton, "Layer normalization", 2016.
#pragma once

#include <cstdint>

#include "lowrank/autograd/record.hpp"
#include "lowrank/backend/cpu/layer_norm.hpp"
#include "lowrank/ops/views.hpp"

namespace lowrank {

/// y = (x - mean) / √(variance + epsilon) · weight + bias over the last dimension, for x [.., n] and weight, bias [n].
/// Two numbers a row are kept for backward, and x itself. Throws ShapeError where shapes do not fit.
template <class T, DeviceTag D>
Tensor<T, D> layer_norm(const Tensor<T, D>& input, const Tensor<compute_t<T>, D>& weight,
                        const Tensor<compute_t<T>, D>& bias, double epsilon) {
    using C = compute_t<T>;
    if (input.rank() < 1 || weight.shape() != Shape{input.size(-1)} || bias.shape() != weight.shape()) {
        throw ShapeError(concat("layer_norm: expected weight and bias of the input's last extent: input ",
                                input.shape(), ", weight ", weight.shape(), ", bias ", bias.shape()));
    }
    const Tensor<T, D> x = contiguous(input);
    const Tensor<C, D> gain = contiguous(weight), shift = contiguous(bias);
    const std::int64_t n = x.size(-1), rows = n > 0 ? x.numel() / n : 0;
    Tensor<T, D> y = Tensor<T, D>::empty(x.shape());
    Tensor<double, D> mean = Tensor<double, D>::empty({rows});
    Tensor<C, D> rstd = Tensor<C, D>::empty({rows});
    layer_norm_forward(D{}, rows, n, x.data(), gain.data(), shift.data(), epsilon, y.mutable_data(),
                       mean.mutable_data(), rstd.mutable_data());
    const Edge ex = edge(x);
    const Edge ew = edge(gain), eb = edge(shift);
    const auto sx = save_if(ex || ew, x);
    const auto sw = save(gain), sb = save(shift);
    const Tensor<T, D> result = record(y, ex || ew || eb, [=](const Tensor<T, D>& upstream) {
        const Tensor<T, D> dy = contiguous(upstream);
        if (ex) {
            Tensor<T, D> dx = Tensor<T, D>::empty(dy.shape());
            layer_norm_backward(D{}, rows, n, sx.get().data(), sw.get().data(), mean.data(), rstd.data(), dy.data(),
                                dx.mutable_data());
            ex.add(dx);
        }
        if (ew) {
            Tensor<C, D> dw = Tensor<C, D>::empty({n});
            layer_norm_weight_backward(D{}, rows, n, sx.get().data(), mean.data(), rstd.data(), dy.data(),
                                       dw.mutable_data());
            ew.add(dw);
        }
        if (eb) {
            Tensor<C, D> db = Tensor<C, D>::empty({n});
            sum_rows(D{}, rows, n, dy.data(), db.mutable_data());
            eb.add(db);
        }
    });
    if (ex || ew) {
        made_again_by(result, [=] {
            const Tensor<T, D> from = sx.get();
            Tensor<T, D> again = Tensor<T, D>::empty(from.shape());
            layer_norm_forward(D{}, rows, n, from.data(), sw.get().data(), sb.get().data(), epsilon,
                               again.mutable_data(), Tensor<double, D>::empty({rows}).mutable_data(),
                               Tensor<C, D>::empty({rows}).mutable_data());
            return again;
        });
    }
    return result;
}

} // namespace lowrank
