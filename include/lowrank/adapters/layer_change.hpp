// What an adapter does to its layer, as factors or as a whole, and plain LoRA from such factors.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <typeinfo>
#include <vector>

#include "lowrank/adapters/attach.hpp"
#include "lowrank/adapters/combine.hpp"

namespace lowrank {

/// An adapter as factors: for LoRA its own, for a method that adds low-rank terms those of the terms, and for every
/// other one the change of the merged matrix, which has the rounding of the base's values in it.
template <class T, DeviceTag D>
LayerChange<compute_t<T>, D> factors_of(const Linear<T, D>& layer, LinearAdapter<T, D>& adapter) {
    using C = compute_t<T>;
    const NoGrad no_grad;
    LayerChange<C, D> factors;
    if (typeid(adapter) == typeid(Lora<T, D>)) {
        factors.scale = static_cast<const Lora<T, D>&>(adapter).scale();
        adapter.parameters([&](const std::string& name, const Tensor<C, D>& values) {
            (name == "lora_A.weight"   ? factors.a
             : name == "lora_B.weight" ? factors.b
                                       : factors.b_bias) = values.detach();
        });
        return factors;
    }
    const Tensor<C, D> bias = adapter.merged_bias(layer);
    if (bias.defined()) {
        const Tensor<C, D> shift = layer.bias.defined() ? bias - layer.bias.detach() : bias;
        const std::vector<C> values = shift.to_vector();
        if (std::any_of(values.begin(), values.end(), [](C value) { return value != 0; })) {
            factors.b_bias = shift;
        }
    }
    if constexpr (std::is_same_v<T, C>) { // the identity's images are the factors; bf16 would round them
        const std::int64_t in = layer.weight.in();
        std::vector<C> one(static_cast<std::size_t>(in * in));
        for (std::int64_t i = 0; i < in; ++i) {
            one[static_cast<std::size_t>(i * in + i)] = 1;
        }
        std::vector<LowRankTerm<T, D>> terms;
        if (!factors.b_bias.defined() && adapter.low_rank_terms(layer, Tensor<C, D>::from(one, {in, in}), {}, terms)) {
            std::vector<LayerChange<C, D>> products;
            for (const LowRankTerm<T, D>& term : terms) {
                products.push_back({contiguous(transpose(term.t)), term.b.detach(), {}, term.scale, {}});
            }
            return detail::stacked(products, std::vector<double>(products.size(), 1.0));
        }
    }
    factors.delta = as_out_in(adapter.merged(layer) - dense_values(layer.weight), layer.weight.orientation());
    return factors;
}

/// The same for an embedding's: the table is the transpose of a matrix [width, rows].
template <class T, DeviceTag D>
LayerChange<compute_t<T>, D> factors_of(const Embedding<T, D>& layer, EmbeddingAdapter<T, D>& adapter) {
    using C = compute_t<T>;
    const NoGrad no_grad;
    LayerChange<C, D> factors;
    if (typeid(adapter) == typeid(LoraEmbedding<T, D>)) {
        factors.scale = static_cast<const LoraEmbedding<T, D>&>(adapter).scale();
        adapter.parameters([&](const std::string& name, const Tensor<C, D>& values) {
            (name == "lora_embedding_A" ? factors.a : factors.b) = values.detach();
        });
    } else {
        factors.delta = contiguous(transpose(adapter.merged(layer) - dense_values(layer.weight)));
    }
    return factors;
}

/// Changes of the layers of a model, by their paths.
template <class C, DeviceTag D>
struct LayerChanges {
    std::map<std::string, LayerChange<C, D>> linears, embeddings;
};

/// Adapters of LoRA, and their settings.
template <class T, DeviceTag D>
struct AdaptersWithConfig {
    LoraConfig config;
    MadeAdapters<T, D> adapters;
};

/// Plain LoRA with s = 1 from factors. The most frequent rank is r, the others are patterns; the layers are targeted by
/// their paths. `like` is the config of an adapter over the same base model. Throws OptionError where an embedding and
/// a lora_bias would be in one adapter, which PEFT does not have.
template <class T, DeviceTag D>
AdaptersWithConfig<T, D> plain_lora(const LayerChanges<compute_t<T>, D>& layers, const AdapterConfig& like) {
    using C = compute_t<T>;
    AdaptersWithConfig<T, D> plain;
    LoraConfig& config = plain.config;
    std::map<std::string, std::int64_t> ranks;
    std::map<std::int64_t, std::size_t> counts;
    for (const auto* kind : {&layers.linears, &layers.embeddings}) {
        for (const auto& [path, factors] : *kind) {
            ranks[path] = factors.a.size(0);
            ++counts[ranks[path]];
            config.lora_bias = config.lora_bias || factors.b_bias.defined();
        }
    }
    if (config.lora_bias && !layers.embeddings.empty()) {
        throw OptionError(concat(layers.embeddings.begin()->first,
                                 ": an embedding has no lora_bias, which another layer of this adapter needs"));
    }
    std::size_t most = 0;
    for (const auto& [rank, count] : counts) {
        if (count > most) {
            most = count;
            config.r = rank;
        }
    }
    config.lora_alpha = static_cast<double>(config.r);
    config.base_model_name_or_path = targets(like).base_model_name_or_path;
    std::vector<std::string> paths;
    for (const auto& [path, rank] : ranks) {
        paths.push_back(path);
        if (rank != config.r) {
            config.rank_pattern.emplace_back(path, rank);
            config.alpha_pattern.emplace_back(path, static_cast<double>(rank));
        }
    }
    config.target_modules = paths;
    for (const auto& [path, factors] : layers.linears) {
        const Tensor<C, D> bias =
            factors.b_bias.defined() || !config.lora_bias ? factors.b_bias : Tensor<C, D>::zeros({factors.b.size(0)});
        plain.adapters.linears[path] =
            std::make_shared<Lora<T, D>>(factors.a, factors.b, bias, 1.0, 0.0, dropout_site(path + ".lora_dropout"));
    }
    for (const auto& [path, factors] : layers.embeddings) {
        plain.adapters.embeddings[path] = std::make_shared<LoraEmbedding<T, D>>(factors.a, factors.b, 1.0);
    }
    return plain;
}

} // namespace lowrank
