// Dropout: in training, elements become 0 with probability p and the others grow by 1/(1-p).
#pragma once

#include <cstdint>

#include "lowrank/nn/context.hpp"
#include "lowrank/nn/module.hpp"
#include "lowrank/ops/dropout.hpp"

namespace lowrank {

/// A place where dropout happens. `site` tells places of a model apart: see dropout_site.
template <class T, DeviceTag D = Cpu>
struct Dropout {
    double p = 0;
    std::uint32_t site = 0;

    template <class Visit>
    void fields(Visit&&) {}

    /// x, and in training with dropout by the context's seed.
    Tensor<T, D> forward(const Tensor<T, D>& x, const ForwardContext<D>& context) const {
        return context.training && p > 0 ? dropout(x, p, context.seed, site) : x;
    }
};

} // namespace lowrank
