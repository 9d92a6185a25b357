// LoRA+: parameter groups in which the matrices B learn faster than A.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/optim/parameter_group.hpp"

namespace lowrank {

/// Groups for AdamW as PEFT's create_loraplus_optimizer makes them, by the parameters' names in an adapter file: the
/// learning rate is `learning_rate` (the optimizer's) for lora_A and the rest, `ratio` times as high for lora_B and
/// tensors of one dimension, and `embedding_learning_rate` for lora_embedding_*. Biases and norms have no weight decay.
/// Throws OptionError when names and parameters differ in number, `learning_rate` is not above 0 or `ratio` is below 1.
/// Source: Hayou et al., arXiv:2402.12354, who advise a ratio of about 16.
template <class A, DeviceTag D>
std::vector<ParameterGroup<A, D>> loraplus_groups(const std::vector<std::string>& names,
                                                  const std::vector<Tensor<A, D>>& parameters, double learning_rate,
                                                  double ratio, double embedding_learning_rate = 1e-6) {
    if (names.size() != parameters.size()) {
        throw OptionError(concat("LoRA+: found ", names.size(), " names for ", parameters.size(), " parameters"));
    }
    if (!(learning_rate > 0) || !(ratio >= 1) || !std::isfinite(ratio)) {
        throw OptionError(concat("LoRA+: found learning rate ", learning_rate, " and ratio ", ratio,
                                 ", expected a learning rate above 0 and a ratio of 1 or more"));
    }
    enum { rest, embedding, fast, fast_without_decay };
    std::vector<ParameterGroup<A, D>> groups(4);
    groups[embedding].learning_rate_scale = embedding_learning_rate / learning_rate;
    groups[fast].learning_rate_scale = groups[fast_without_decay].learning_rate_scale = ratio;
    groups[fast_without_decay].weight_decay = 0.0;
    for (std::size_t i = 0; i < names.size(); ++i) {
        const auto has = [&](const char* part) { return names[i].find(part) != std::string::npos; };
        const bool vector = parameters[i].rank() == 1;
        // Vectors that are no bias and belong to no adapter are the weights of norms.
        const bool decays = !has("bias") && (!vector || has("lora_") || has("vera_"));
        auto& group = groups[has("lora_embedding_")      ? embedding
                             : !vector && !has("lora_B") ? rest
                             : decays                    ? fast
                                                         : fast_without_decay];
        group.names.push_back(names[i]);
        group.parameters.push_back(parameters[i]);
    }
    return groups;
}

} // namespace lowrank
