// RmsNorm: each row gets mean square 1, then a gain.
#pragma once

#include "lowrank/nn/context.hpp"
#include "lowrank/nn/initialize.hpp"
#include "lowrank/nn/module.hpp"
#include "lowrank/ops/rms_norm.hpp"

namespace lowrank {

/// LLaMA's norm over the last dimension, with weight [width].
template <class T, DeviceTag D = Cpu>
struct RmsNorm {
    Tensor<compute_t<T>, D> weight;
    double epsilon = 1e-6;

    /// A new trained norm, gain 1.
    static RmsNorm ones(std::int64_t width) { return {constant_parameter<compute_t<T>, D>({width}, 1)}; }

    template <class Visit>
    void fields(Visit&& visit) {
        visit("weight", weight);
    }

    Tensor<T, D> forward(const Tensor<T, D>& x, const ForwardContext<D>& = {}) const {
        return rms_norm(x, weight, epsilon);
    }
};

} // namespace lowrank
