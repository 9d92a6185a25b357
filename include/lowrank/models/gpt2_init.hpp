// A new GPT-2 with random weights, to be pretrained.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "lowrank/core/random.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"
#include "lowrank/nn/initialize.hpp"

namespace lowrank {

namespace detail {

inline const char* activation_name(Activation activation) {
    return activation == Activation::gelu_erf ? "gelu" : activation == Activation::relu ? "relu" : "gelu_new";
}

/// The config.json of a model that comes from no file.
inline json gpt2_document(const Gpt2Config& c) {
    json document = {{"architectures", {"GPT2LMHeadModel"}},
                     {"model_type", "gpt2"},
                     {"vocab_size", c.vocab_size},
                     {"n_positions", c.n_positions},
                     {"n_embd", c.n_embd},
                     {"n_layer", c.n_layer},
                     {"n_head", c.n_head},
                     {"n_inner", c.n_inner},
                     {"activation_function", activation_name(c.activation_function)},
                     {"layer_norm_epsilon", c.layer_norm_epsilon},
                     {"resid_pdrop", c.resid_pdrop},
                     {"embd_pdrop", c.embd_pdrop},
                     {"attn_pdrop", c.attn_pdrop},
                     {"initializer_range", 0.02},
                     {"scale_attn_weights", c.scale_attn_weights},
                     {"scale_attn_by_inverse_layer_idx", c.scale_attn_by_inverse_layer_idx},
                     {"tie_word_embeddings", c.tie_word_embeddings},
                     {"torch_dtype", "float32"}};
    if (c.eos_token_id) {
        document["bos_token_id"] = document["eos_token_id"] = *c.eos_token_id;
    }
    return document;
}

} // namespace detail

/// How the position embeddings of a new model start: at random as GPT-2's do, or as waves of wavelengths from 2π to
/// n_positions, with the same deviation. Then near positions are alike from the start, and heads that look a few tokens
/// back are learnt sooner. (Waves: Vaswani et al., 2017, section 3.5.)
enum class PositionInit { normal, sinusoidal };

namespace detail {

template <class C>
std::vector<C> position_waves(std::int64_t positions, std::int64_t width, double deviation) {
    std::vector<C> values(static_cast<std::size_t>(positions * width));
    const double pi = std::acos(-1.0), longest = std::max(1.0, static_cast<double>(positions) / (2 * pi));
    for (std::size_t i = 0; i < values.size(); ++i) {
        const auto position = static_cast<double>(static_cast<std::int64_t>(i) / width);
        const std::int64_t column = static_cast<std::int64_t>(i) % width;
        const double wave = static_cast<double>(column / 2) / std::max(1.0, static_cast<double>(width / 2 - 1));
        const double angle = position / std::pow(longest, wave);
        values[i] = static_cast<C>(deviation * std::sqrt(2.0) * (column % 2 == 0 ? std::sin(angle) : std::cos(angle)));
    }
    return values;
}

} // namespace detail

/// A GPT-2 of these sizes, all of it trainable. Matrices are normal with standard deviation 0.02, those that project
/// back into the residual stream with 0.02/√(2·n_layer); biases are 0, the norms' weights 1. The same seed gives the
/// same weights. `config.document` is written anew. Throws OptionError where n_head does not divide n_embd.
/// Source: Radford et al. 2019, section 2.3, and Transformers' GPT2PreTrainedModel._init_weights.
template <class T, DeviceTag D = Cpu>
Gpt2<T, D> new_gpt2(Gpt2Config config, std::uint64_t seed, PositionInit positions = PositionInit::normal) {
    using C = compute_t<T>;
    if (config.n_head < 1 || config.n_embd % config.n_head != 0) {
        throw OptionError(concat("n_head: found ", config.n_head, ", expected a divisor of n_embd, ", config.n_embd));
    }
    config.document = detail::gpt2_document(config);
    Gpt2<T, D> model(config);
    const double residual_scale = 1 / std::sqrt(2 * std::max(1.0, static_cast<double>(config.n_layer)));
    std::uint32_t stream = 0;
    for_each_parameter<C, D>(model, [&]<class Field>(const std::string& path, Field& field) {
        if constexpr (std::is_same_v<Field, WeightSlot<C, D>>) {
            const detail::Gpt2Matrix m = detail::gpt2_matrix(config, path);
            const double deviation = path.ends_with("c_proj.weight") ? 0.02 * residual_scale : 0.02;
            const Shape shape = m.orientation == Orientation::out_in ? Shape{m.out, m.in} : Shape{m.in, m.out};
            Rng rng(seed, stream++);
            const bool waves = positions == PositionInit::sinusoidal && path.ends_with("wpe.weight");
            field = WeightSlot<C, D>(
                waves ? leaf(Tensor<C, D>::from(detail::position_waves<C>(m.out, m.in, deviation), shape))
                      : normal_parameter<C, D>(shape, deviation, rng),
                m.orientation);
        } else if (path != "lm_head.bias") { // GPT-2's head has none
            field = constant_parameter<C, D>({detail::gpt2_vector(config, path)}, path.ends_with(".weight") ? 1 : 0);
        }
    });
    return model;
}

} // namespace lowrank
