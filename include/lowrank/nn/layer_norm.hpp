// LayerNorm: each row gets mean 0 and variance 1, then a gain and a shift.
#pragma once

#include "lowrank/nn/context.hpp"
#include "lowrank/nn/initialize.hpp"
#include "lowrank/nn/module.hpp"
#include "lowrank/ops/layer_norm.hpp"

namespace lowrank {

/// torch's LayerNorm over the last dimension, with weight and bias [width].
template <class T, DeviceTag D = Cpu>
struct LayerNorm {
    Tensor<compute_t<T>, D> weight, bias;
    double epsilon = 1e-5;

    /// A new trained norm, gain 1 and shift 0.
    static LayerNorm ones(std::int64_t width) {
        using C = compute_t<T>;
        return {constant_parameter<C, D>({width}, 1), constant_parameter<C, D>({width}, 0)};
    }

    template <class Visit>
    void fields(Visit&& visit) {
        visit("weight", weight);
        visit("bias", bias);
    }

    Tensor<T, D> forward(const Tensor<T, D>& x, const ForwardContext<D>& = {}) const {
        return layer_norm(x, weight, bias, epsilon);
    }
};

} // namespace lowrank
