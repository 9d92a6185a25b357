// Any adapter as plain LoRA: the singular vectors of what it changes, and scales that every reader of LoRA understands.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lowrank/adapters/layer_change.hpp"

namespace lowrank {

/// How much of a change is kept: a rank, or the smallest rank that holds a share of the squared singular values.
struct ConvertOptions {
    std::int64_t rank = 0; ///< 0: by energy
    double energy = 0;     ///< above 0 and at most 1; 0: by rank
};

/// What became of one layer.
struct ConvertedLayer {
    std::string path;
    std::int64_t rank;
    double error; ///< ‖Δ − BA‖ / ‖Δ‖, of Frobenius norms
};

/// The factors nearest to a change [out, in], B = U·S and A = Vᵀ with s = 1. Throws OptionError unless there is either
/// a rank of 1 or more or an energy in (0, 1].
template <class C, DeviceTag D>
LayerChange<C, D> nearest_factors(const Tensor<C, D>& change, const ConvertOptions& options) {
    const bool by_rank = options.rank != 0;
    if (by_rank ? options.rank < 0 || options.energy != 0 : !(options.energy > 0 && options.energy <= 1)) {
        throw OptionError(concat("convert: found rank ", options.rank, " and energy ", options.energy,
                                 ", expected a rank of 1 or more, or an energy above 0 and at most 1"));
    }
    const std::int64_t order = std::min(change.size(0), change.size(1));
    if (by_rank) {
        return detail::factors_of_svd(leading_svd(change, std::min(options.rank, order), 0));
    }
    const Svd<C, D> all = svd(change, order);
    const std::vector<C> s = all.s.to_vector();
    const std::int64_t rank =
        std::max<std::int64_t>(1, rank_of_energy(std::vector<double>(s.begin(), s.end()), options.energy));
    return detail::factors_of_svd(
        Svd<C, D>{contiguous(slice(all.u, 1, 0, rank)), slice(all.s, 0, 0, rank), slice(all.vt, 0, 0, rank)});
}

namespace detail {

/// √Σ x², in double.
template <class C, DeviceTag D>
double norm(const Tensor<C, D>& x) {
    const Tensor<double, D> values = cast<double>(x);
    return std::sqrt(sum(values * values).item());
}

} // namespace detail

/// What convert_to_lora made.
struct Conversion {
    LoraConfig config;
    std::vector<ConvertedLayer> layers;
};

/// Puts plain LoRA in the place of every adapter of a model: any method, DoRA, VeRA, AdaLoRA, IA3 or
/// one of your own, as the change of the merged matrix. A change of biases by an adapter becomes a lora_bias; what is
/// trained beside the adapters stays. The config has the ranks, α = r, and the settings of `like` that are not of the
/// method. Throws as nearest_factors; then nothing has changed.
template <class T, DeviceTag D, Module M>
Conversion convert_to_lora(M& model, const ConvertOptions& options, const AdapterConfig& like) {
    using C = compute_t<T>;
    const NoGrad no_grad;
    LayerChanges<C, D> changes;
    Conversion conversion;
    const auto converted = [&](const std::string& path, const LayerChange<C, D>& own) {
        const Tensor<C, D> change = detail::delta_of(own);
        LayerChange<C, D> plain = nearest_factors(change, options);
        if (own.b_bias.defined()) {
            plain.b_bias = own.b_bias * own.scale;
        }
        const double size = detail::norm(change), rest = detail::norm(change - matmul(plain.b, plain.a));
        conversion.layers.push_back({path, plain.a.size(0), size > 0 ? rest / size : 0});
        return plain;
    };
    for_each<Linear<T, D>>(model, [&](const std::string& path, Linear<T, D>& layer) {
        if (layer.adapter) {
            changes.linears.emplace(path, converted(path, factors_of(layer, *layer.adapter)));
        }
    });
    for_each<Embedding<T, D>>(model, [&](const std::string& path, Embedding<T, D>& layer) {
        if (layer.adapter) {
            changes.embeddings.emplace(path, converted(path, factors_of(layer, *layer.adapter)));
        }
    });
    if (conversion.layers.empty()) {
        throw OptionError("convert: the model has no adapter");
    }
    const AdaptersWithConfig<T, D> plain = plain_lora<T, D>(changes, like);
    conversion.config = plain.config;
    conversion.config.bias = targets(like).bias;
    conversion.config.modules_to_save = targets(like).modules_to_save;
    for_each<Linear<T, D>>(model, [&](const std::string& path, Linear<T, D>& layer) {
        if (layer.adapter) {
            layer.adapter = plain.adapters.linears.at(path);
        }
    });
    for_each<Embedding<T, D>>(model, [&](const std::string& path, Embedding<T, D>& layer) {
        if (layer.adapter) {
            layer.adapter = plain.adapters.embeddings.at(path);
        }
    });
    return conversion;
}

/// The same adapter for programs that know no use_rslora: α·√r in the place of α, for each of these layers as its rank
/// says.
inline LoraConfig with_baked_scale(LoraConfig config, const std::vector<std::string>& paths) {
    if (!config.use_rslora) {
        return config;
    }
    const auto baked = [](double alpha, std::int64_t r) { return alpha * std::sqrt(static_cast<double>(r)); };
    std::vector<std::pair<std::string, double>> alphas;
    for (const std::string& path : paths) {
        const double alpha = baked(alpha_at(config, path), rank_at(config, path));
        if (alpha != baked(config.lora_alpha, config.r)) {
            alphas.emplace_back(path, alpha);
        }
    }
    config.lora_alpha = baked(config.lora_alpha, config.r);
    config.alpha_pattern = alphas;
    config.use_rslora = false;
    return config;
}

} // namespace lowrank
