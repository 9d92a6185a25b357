// A group of parameters that share optimizer settings.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/nn/parameters.hpp"
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

/// Everything that is trained in a model, with its names, as one group.
template <class T, DeviceTag D = Cpu, Module M>
ParameterGroup<compute_t<T>, D> trained_group(M& model) {
    ParameterGroup<compute_t<T>, D> group;
    for (const NamedTensor<compute_t<T>, D>& tensor : trainable_tensors<T, D>(model)) {
        group.parameters.push_back(tensor.values);
        group.names.push_back(tensor.name);
    }
    return group;
}

} // namespace lowrank
