// LoftQ: a quantized matrix and the factors that bring it nearest to the one that it was.
// Li et al., "LoftQ: LoRA-fine-tuning-aware quantization for large language models", 2023, algorithm 1.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lowrank/adapters/initial_pissa.hpp"
#include "lowrank/tensor/nf4_weight.hpp"

namespace lowrank {

/// A quantized base and factors such that base + s·BA is near the original.
template <class C, DeviceTag D>
struct Loftq {
    std::shared_ptr<const Weight<D>> base;
    LoraStart<C, D> factors;
};

/// The factors for a base that is quantized already: the r largest singular values' part of original − base, over s.
/// Both matrices are [out, in].
template <class C, DeviceTag D>
LoraStart<C, D> loftq_factors(const Tensor<C, D>& original, const Tensor<C, D>& base, std::int64_t r, double s) {
    return balanced_factors(leading_svd(original - base, r, 0), s);
}

/// Quantizes a matrix to NF4 and finds its factors by turns: the base is quantized from original − s·BA, the factors
/// are those of original − base. After one iteration the base is the quantized matrix itself, and the adapter fits
/// every model that is quantized so; after more of them the base is one of its own, to be saved with it. Throws
/// OptionError for less than one iteration.
template <class C>
Loftq<C, Cpu> loftq(const Weight<Cpu>& original, std::int64_t r, double s, int iterations, const Nf4Options& options) {
    if (iterations < 1) {
        throw OptionError(concat("loftq: found ", iterations, " iterations, expected 1 or more"));
    }
    const Orientation orientation = original.orientation();
    const auto out_in = [&](const Weight<Cpu>& weight) { return as_out_in(weight.dense_copy<C>(), orientation); };
    const Tensor<C, Cpu> w = out_in(original);
    Loftq<C, Cpu> result;
    result.base = Nf4Weight<Cpu>::quantized(original, options);
    result.factors = loftq_factors(w, out_in(*result.base), r, s);
    for (int i = 1; i < iterations; ++i) {
        const Tensor<C, Cpu> rest = w - matmul(result.factors.b, result.factors.a) * s;
        const DenseWeight<C, Cpu> dense(as_out_in(rest, orientation), orientation); // there and back it is the same
        result.base = Nf4Weight<Cpu>::quantized(dense, options);
        result.factors = loftq_factors(w, out_in(*result.base), r, s);
    }
    return result;
}

/// attach_adapter for factors that start as LoftQ's. `original(path)` gives the matrix of a layer before it was
/// quantized, as a std::shared_ptr<const Weight<Cpu>>. With one iteration the bases stay what the layers have, and the
/// factors make up for what these lost; with more of them each layer gets a base of its own, quantized by `options`,
/// which is to be saved with the adapter. Throws as attach_adapter, and OptionError for less than one iteration.
template <class T, Module M, class Original>
std::vector<std::string> attach_loftq(M& model, const LoraConfig& config, std::uint64_t seed, const Original& original,
                                      int iterations = 1, const Nf4Options& options = {}) {
    using C = compute_t<T>;
    validate(config, "adapter settings");
    const LoraConfig drawn = detail::drawn_start(config);
    const std::vector<std::string> paths = attach_adapter<T, Cpu>(model, drawn, seed);
    const NoGrad no_grad;
    // Anew, and not with other factors: DoRA's magnitudes and norms are those of the base and factors that it gets.
    const auto restart = [&](const std::string& path, Linear<T, Cpu>& layer, const LoraStart<C, Cpu>& start) {
        Rng rng(seed);
        layer.adapter = make_adapter<T, Cpu>(
            drawn, path, layer, rng,
            [&](const std::string& name, const Shape&) {
                return name == "lora_A.weight" ? start.a : name == "lora_B.weight" ? start.b : Tensor<C, Cpu>();
            },
            {});
    };
    for_each<Linear<T, Cpu>>(model, [&](const std::string& path, Linear<T, Cpu>& layer) {
        if (!layer.adapter) {
            return;
        }
        const std::int64_t r = rank_at(config, path);
        const double s = lora_scale(alpha_at(config, path), r, config.use_rslora);
        const std::shared_ptr<const Weight<Cpu>> full = original(path);
        if (iterations == 1) {
            const auto out_in = [](const WeightSlot<C, Cpu>& slot) {
                return as_out_in(dense_values(slot), slot.orientation());
            };
            restart(path, layer, loftq_factors(out_in(WeightSlot<C, Cpu>(full)), out_in(layer.weight), r, s));
        } else {
            const Loftq<C, Cpu> found = loftq<C>(*full, r, s, iterations, options);
            layer.weight = found.base;
            restart(path, layer, found.factors);
        }
    });
    return paths;
}

} // namespace lowrank
