// A group of parameters that share optimizer settings.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/tensor/tensor.hpp"

namespace lowrank {

/// Parameters with the same learning rate and weight decay. A is float or double.
template <class A, DeviceTag D = Cpu>
struct ParameterGroup {
    std::vector<Tensor<A, D>> parameters; ///< leaves, contiguous; the optimizer writes to their memory
    std::vector<std::string> names;       ///< one for each parameter, or none at all
    double learning_rate_scale = 1;       ///< factor of the optimizer's learning rate (LoRA+: above 1 for B)
    std::optional<double> weight_decay;   ///< the optimizer's where absent

    // A constructor, and not designated initializers: with those g++ 12 warns of the members left out.
    ParameterGroup() = default;
    explicit ParameterGroup(std::vector<Tensor<A, D>> parameters, std::vector<std::string> names = {},
                            double learning_rate_scale = 1, std::optional<double> weight_decay = {})
        : parameters(std::move(parameters)),
          names(std::move(names)),
          learning_rate_scale(learning_rate_scale),
          weight_decay(weight_decay) {}
};

} // namespace lowrank
