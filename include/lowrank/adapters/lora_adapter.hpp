// LoRA's adapter for a layer or an embedding: which class, and with which factors.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "lowrank/adapters/dora.hpp"
#include "lowrank/adapters/dora_embedding.hpp"
#include "lowrank/adapters/lora_config.hpp"
#include "lowrank/adapters/lora_embedding.hpp"
#include "lowrank/adapters/lora_start.hpp"
#include "lowrank/adapters/stored_values.hpp"

namespace lowrank {

/// The adapter of a linear layer, LoRA's or DoRA's. Tensors that `values` does not have are drawn from `rng`. Throws
/// ShapeError where given values do not fit the layer.
template <class T, DeviceTag D>
std::shared_ptr<LinearAdapter<T, D>>
make_adapter(const LoraConfig& config, const std::string& path, const Linear<T, D>& layer, Rng& rng,
             const StoredValues<compute_t<T>, D>& values, const SharedTensors<compute_t<T>, D>&) {
    using C = compute_t<T>;
    const std::int64_t r = rank_at(config, path), out = layer.weight.out(), in = layer.weight.in();
    LoraStart<C, D> factors{detail::stored(values, "lora_A.weight", {r, in}),
                            detail::stored(values, "lora_B.weight", {out, r})};
    if (!factors.a.defined() || !factors.b.defined()) {
        const LoraStart<C, D> start = initial_lora<C, D>(config.init_lora_weights, out, in, r, rng);
        factors.a = factors.a.defined() ? factors.a : start.a;
        factors.b = factors.b.defined() ? factors.b : start.b;
    }
    Tensor<C, D> b_bias;
    if (config.lora_bias) {
        b_bias = detail::stored_or(values, "lora_B.bias", {out}, [&] { return Tensor<C, D>::zeros({out}); });
    }
    const double scale = lora_scale(alpha_at(config, path), r, config.use_rslora);
    const std::uint32_t site = dropout_site(path + ".lora_dropout");
    if (config.use_dora) {
        return std::make_shared<Dora<T, D>>(layer.weight, factors.a, factors.b, b_bias,
                                            detail::stored(values, "lora_magnitude_vector", {out}), scale,
                                            config.lora_dropout, site, !config.freeze_a);
    }
    return std::make_shared<Lora<T, D>>(factors.a, factors.b, b_bias, scale, config.lora_dropout, site,
                                        !config.freeze_a);
}

/// The adapter of an embedding, LoRA's or DoRA's. New ones start with A = 0 and B ~ N(0, 1), as in PEFT. Throws
/// OptionError for a bias of B, which embeddings do not have.
template <class T, DeviceTag D>
std::shared_ptr<EmbeddingAdapter<T, D>> make_embedding_adapter(const LoraConfig& config, const std::string& path,
                                                               const Embedding<T, D>& layer, Rng& rng,
                                                               const StoredValues<compute_t<T>, D>& values) {
    using C = compute_t<T>;
    if (config.lora_bias) {
        throw OptionError(concat("target_modules: '", path, "' is an embedding, and lora_bias is for linear layers"));
    }
    const std::int64_t r = rank_at(config, path), rows = layer.weight.out(), width = layer.weight.in();
    const auto normal = [&](const Shape& shape) { return detail::drawn<C, D>(shape, [&] { return rng.normal(); }); };
    const bool random = config.init_lora_weights == LoraInit::random;
    const Tensor<C, D> a = detail::stored_or(values, "lora_embedding_A", {r, rows}, [&] {
        return random ? normal({r, rows}) : Tensor<C, D>::zeros({r, rows});
    });
    const Tensor<C, D> b = detail::stored_or(values, "lora_embedding_B", {width, r}, [&] {
        return normal({width, r});
    });
    const double scale = lora_scale(alpha_at(config, path), r, config.use_rslora);
    if (config.use_dora) {
        return std::make_shared<DoraEmbedding<T, D>>(
            layer.weight, a, b, detail::stored(values, "lora_magnitude_vector", {width}), scale, !config.freeze_a);
    }
    return std::make_shared<LoraEmbedding<T, D>>(a, b, scale, !config.freeze_a);
}

} // namespace lowrank
