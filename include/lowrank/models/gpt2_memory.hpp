// How much memory a training step of a GPT-2 takes, counted from what its operations keep.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

#include "lowrank/models/gpt2.hpp"
#include "lowrank/nn/parameters.hpp"
#include "lowrank/ops/lm_head.hpp"
#include "lowrank/optim/adamw.hpp"

namespace lowrank {

/// Bytes of a training step with AdamW.
struct TrainingMemory {
    double weights = 0;     ///< what is frozen, owned or mapped
    double trained = 0;     ///< what is trained, with its gradient and two moments
    double activations = 0; ///< what the forward pass keeps for the backward pass
    double transient = 0;   ///< what the largest operations need beside it

    double total() const { return weights + trained + activations + transient; }
};

namespace detail {

/// What an adapter keeps for each token beside the layer's input: its low-rank input, and what scales need: DoRA's,
/// IA3's and VeRA's.
template <class T, DeviceTag D>
double kept_by_adapter(const Linear<T, D>& layer) {
    double bytes = 0;
    if (layer.adapter) {
        layer.adapter->parameters([&](const std::string& name, const Tensor<compute_t<T>, D>& values) {
            const std::int64_t kept = name == "lora_A.weight" || name == "lora_magnitude_vector" ? values.size(0)
                                      : name == "ia3_l"                                          ? values.numel()
                                      : name == "vera_lambda_d"                                  ? 2 * values.numel()
                                                                                                 : 0;
            bytes += static_cast<double>(kept * std::int64_t(sizeof(T)));
        });
    }
    return bytes;
}

/// What a block keeps for each token, in bytes; 0 where no gradient passes through it. `flows` says whether anything
/// below the block is trained, and then whether anything in it or below is.
template <class T, DeviceTag D>
double kept_by_block(Gpt2Block<T, D>& block, const Gpt2Config& config, bool& flows) {
    const bool block_input = std::exchange(flows, flows || !trainable_tensors<T, D>(block).empty());
    if (!flows) {
        return 0;
    }
    const auto row = static_cast<double>(config.n_embd * sizeof(T)), inner = double(config.n_inner * sizeof(T));
    const auto norm = static_cast<double>(sizeof(double) + sizeof(compute_t<T>)); // a mean and a deviation
    const double attention = 4 * row + static_cast<double>(config.n_head * sizeof(compute_t<T>)); // qkv, its result
    // Inputs of layers are made again from what norms and activations keep, unless the norm is not recorded itself.
    const Linear<T, D>& c_attn = block.attn.c_attn;
    const double first = block_input ? row + norm : c_attn.adapter || c_attn.weight.is_trainable() ? row : 0;
    return first + attention + (row + norm) + inner + kept_by_adapter(c_attn) + kept_by_adapter(block.attn.c_proj) +
           kept_by_adapter(block.mlp.c_fc) + kept_by_adapter(block.mlp.c_proj);
}

} // namespace detail

/// The memory of a step whose largest micro-batch has `rows` rows of `length` tokens; the model is ready for training.
/// Moments in a file are counted, too: they lie in memory until the system needs it.
/// What the kernels' threads need, and the program around them, comes on top.
template <class T, DeviceTag D>
TrainingMemory training_memory(Gpt2<T, D>& model, std::int64_t rows, std::int64_t length,
                               const AdamWOptions& adamw = {}) {
    using C = compute_t<T>;
    const Gpt2Config& config = model.config;
    const auto tokens = static_cast<double>(rows * length);
    TrainingMemory memory;
    for_each_parameter<C, D>(model, [&]<class Field>(const std::string&, const Field& field) {
        if constexpr (std::is_same_v<Field, WeightSlot<C, D>>) {
            if (field.frozen()) {
                memory.weights += static_cast<double>(field.frozen()->bytes());
            }
        } else if (field.defined() && !field.node()) {
            memory.weights += static_cast<double>(field.numel() * sizeof(C));
        }
    });
    double largest = 0; // of the trained tensors: a gradient is made, scaled and then added
    for (const NamedTensor<C, D>& tensor : trainable_tensors<T, D>(model)) {
        const auto bytes = static_cast<double>(tensor.values.numel() * sizeof(C));
        memory.trained += 2 * bytes + static_cast<double>(moment_bytes(tensor.values.numel(), sizeof(C), adamw));
        largest = std::max(largest, bytes);
    }
    bool flows = model.transformer.wte.weight.is_trainable() || model.transformer.wpe.weight.is_trainable();
    double kept = 0, largest_block = 0;
    for (Gpt2Block<T, D>& block : model.transformer.h) {
        const double block_kept = detail::kept_by_block(block, config, flows);
        kept += block_kept;
        largest_block = std::max(largest_block, block_kept);
    }
    const auto row = static_cast<double>(config.n_embd * sizeof(T)), inner = double(config.n_inner * sizeof(T));
    if (model.gradient_checkpointing) {
        kept = static_cast<double>(config.n_layer) * row + largest_block;
    }
    memory.activations = tokens * (kept + 2 * row); // the final norm's input, and the gradient of its result

    // The backward pass through an MLP: gradients of its hidden layer before and behind the activation, a few rows,
    // that of qkv; and a product's left factor, packed. The head: a chunk of logits and the rows that they are of.
    const auto packed = static_cast<double>(std::max(config.n_inner, 3 * config.n_embd) * sizeof(C));
    const std::int64_t chunk = detail::lm_head_rows<T>(rows * length, config.vocab_size);
    const auto head = static_cast<double>(chunk * (config.vocab_size + 2 * config.n_embd) * std::int64_t(sizeof(C)));
    memory.transient = tokens * (2 * inner + 7 * row + packed) + head + 2 * largest;
    return memory;
}

} // namespace lowrank
