// Clipping by the global norm of the gradients, which also finds gradients that are not finite.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
#include <vector>

#include "lowrank/autograd/node.hpp"
#include "lowrank/backend/cpu/optimizer.hpp"
#include "lowrank/core/error.hpp"

namespace lowrank {

/// The norm of the gradients of a list of parameters.
struct GradientNorm {
    double value = 0; ///< L2 norm of all gradients seen as one vector
    std::optional<std::size_t>
        first_nonfinite; ///< index of the first parameter whose gradient's norm is NaN or infinite

    /// What the gradients are multiplied by so that their norm is at most `max_norm`: min(1, max_norm / (norm + 1e-6)),
    /// as torch.nn.utils.clip_grad_norm_. 1 when max_norm is 0, which means no clipping. Throws OptionError when
    /// max_norm is negative or NaN, and NumericError when the norm is not finite.
    double clip_factor(double max_norm) const {
        if (!(max_norm >= 0)) {
            throw OptionError(concat("maximum gradient norm: found ", max_norm, ", expected 0 (no clipping) or more"));
        }
        if (!std::isfinite(value)) {
            throw NumericError(concat("the norm of the gradients is ", value, ": they cannot be clipped"));
        }
        return max_norm == 0 ? 1 : std::min(1.0, max_norm / (value + 1e-6));
    }
};

/// The global L2 norm of the gradients of `parameters`, accumulated in double and in their order. Parameters without a
/// gradient are passed over. Copies one number for each parameter to the host.
template <class A, DeviceTag D>
GradientNorm gradient_norm(const std::vector<Tensor<A, D>>& parameters, const Gradients& gradients) {
    Tensor<double, D> sums = Tensor<double, D>::zeros({static_cast<std::int64_t>(parameters.size())});
    double* sum = sums.mutable_data();
    for (const Tensor<A, D>& parameter : parameters) {
        if (const Tensor<A, D>* gradient = gradients.find(parameter)) {
            squared_sum(D{}, gradient->numel(), gradient->data(), sum);
        }
        ++sum;
    }
    GradientNorm norm;
    double total = 0;
    const std::vector<double> host = sums.to_vector();
    for (std::size_t i = 0; i < host.size(); ++i) {
        if (!std::isfinite(host[i]) && !norm.first_nonfinite) {
            norm.first_nonfinite = i;
        }
        total += host[i];
    }
    norm.value = std::sqrt(total);
    return norm;
}

} // namespace lowrank
