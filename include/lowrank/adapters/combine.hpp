// Combining LoRA adapters of one layer into a new one, by PEFT's combination types.
// Yadav et al., "TIES-merging", 2023; Yu et al., "Language models are super Mario" (DARE), 2024.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/adapters/svd.hpp"
#include "lowrank/nn/context.hpp"

namespace lowrank {

/// How adapters are combined; PEFT's combination_type. Those that end in svd work on the changes Δ = s·BA of a matrix
/// and cut the result to a rank; the others, cat apart, work on the factors A and B one by one, which need equal ranks
/// and gives no sum of the changes: B₁A₂ is in it, too.
enum class Combination {
    cat,
    linear,
    svd,
    ties,
    dare_linear,
    dare_ties,
    magnitude_prune,
    ties_svd,
    dare_linear_svd,
    dare_ties_svd,
    magnitude_prune_svd,
};

/// How TIES elects a sign: that of the sum of the values, or that of most of them.
enum class MajoritySign { total, frequency };

struct CombineOptions {
    Combination combination_type = Combination::svd;
    std::int64_t svd_rank = 0;     ///< of the types with svd; 0 is the largest rank of the sources
    std::optional<double> density; ///< the share of the values that ties, dare and magnitude_prune keep
    MajoritySign majority_sign_method = MajoritySign::total;
    std::uint64_t seed = 0; ///< of what dare drops
};

/// What one adapter does to a matrix: y += s·B(Ax) + s·bias. An adapter that is no such product gives its whole change.
template <class C, DeviceTag D>
struct LayerChange {
    Tensor<C, D> a, b;   ///< [r, in] and [out, r]; undefined where there is a delta
    Tensor<C, D> b_bias; ///< [out], or undefined
    double scale = 1;
    Tensor<C, D> delta; ///< [out, in], or undefined
};

namespace detail {

enum class Pruning { none, magnitude, random };

struct CombinationTraits {
    std::string_view name;
    Combination type;
    Pruning pruning;
    bool elects_sign, on_delta;
};

inline constexpr std::array combination_traits{
    CombinationTraits{"cat", Combination::cat, Pruning::none, false, false},
    CombinationTraits{"linear", Combination::linear, Pruning::none, false, false},
    CombinationTraits{"svd", Combination::svd, Pruning::none, false, true},
    CombinationTraits{"ties", Combination::ties, Pruning::magnitude, true, false},
    CombinationTraits{"dare_linear", Combination::dare_linear, Pruning::random, false, false},
    CombinationTraits{"dare_ties", Combination::dare_ties, Pruning::random, true, false},
    CombinationTraits{"magnitude_prune", Combination::magnitude_prune, Pruning::magnitude, false, false},
    CombinationTraits{"ties_svd", Combination::ties_svd, Pruning::magnitude, true, true},
    CombinationTraits{"dare_linear_svd", Combination::dare_linear_svd, Pruning::random, false, true},
    CombinationTraits{"dare_ties_svd", Combination::dare_ties_svd, Pruning::random, true, true},
    CombinationTraits{"magnitude_prune_svd", Combination::magnitude_prune_svd, Pruning::magnitude, false, true},
};

inline const CombinationTraits& traits_of(Combination type) {
    return combination_traits[static_cast<std::size_t>(type)];
}

} // namespace detail

/// The names of the combination types, in PEFT's spelling.
inline std::vector<std::string> combination_names() {
    std::vector<std::string> names;
    for (const auto& traits : detail::combination_traits) {
        names.emplace_back(traits.name);
    }
    return names;
}

/// The type of that name. Throws OptionError for another.
inline Combination combination_from_name(const std::string& name) {
    for (const auto& traits : detail::combination_traits) {
        if (traits.name == name) {
            return traits.type;
        }
    }
    throw OptionError(concat("combination type '", name,
                             "': expected cat, linear, svd, ties, dare_linear, dare_ties, "
                             "magnitude_prune, or one of the last four with _svd"));
}

/// Throws OptionError unless there is a weight for each of the sources and the options fit the combination type.
inline void validate(const CombineOptions& options, std::size_t sources, const std::vector<double>& weights) {
    const auto& traits = detail::traits_of(options.combination_type);
    if (sources == 0 || weights.size() != sources) {
        throw OptionError(concat("combine: found ", weights.size(), " weights for ", sources, " adapters"));
    }
    for (const double weight : weights) {
        if (!std::isfinite(weight)) {
            throw OptionError(concat("combine: found ", weight, " as a weight, expected a finite number"));
        }
    }
    const bool prunes = traits.pruning != detail::Pruning::none;
    if (prunes != options.density.has_value()) {
        throw OptionError(concat("combine: density: ", traits.name, prunes ? " needs one" : " has none"));
    }
    if (prunes && !(*options.density > 0 && *options.density <= 1)) {
        throw OptionError(concat("combine: density: found ", *options.density, ", expected more than 0 and at most 1"));
    }
    if (options.svd_rank < 0 || (options.svd_rank > 0 && !traits.on_delta)) {
        throw OptionError(concat("combine: svd_rank: found ", options.svd_rank, " with ", traits.name,
                                 ", expected 1 or more, with svd or a type that ends in _svd"));
    }
}

/// Keeps the ⌊density·n⌋ values of largest magnitude, of equal ones the first, and zeroes the others (TIES' trim).
template <class C>
void prune_magnitude(std::vector<C>& values, double density) {
    const auto kept = static_cast<std::size_t>(density * static_cast<double>(values.size()));
    std::vector<std::size_t> order(values.size());
    std::iota(order.begin(), order.end(), std::size_t(0));
    const auto larger = [&](std::size_t a, std::size_t b) {
        const C x = std::abs(values[a]), y = std::abs(values[b]);
        return x != y ? x > y : a < b;
    };
    const auto middle = order.begin() + static_cast<std::ptrdiff_t>(kept);
    std::nth_element(order.begin(), middle, order.end(), larger);
    std::for_each(middle, order.end(), [&](std::size_t i) { values[i] = 0; });
}

/// Keeps each value with this probability, and divides it by it; the others become zero (DARE).
template <class C>
void drop_and_rescale(std::vector<C>& values, double density, Rng& rng) {
    for (C& value : values) {
        value = rng.uniform() < density ? static_cast<C>(static_cast<double>(value) / density) : C(0);
    }
}

/// The weighted sum of tasks' values; after pruning, and where signs are elected the mean over those tasks whose value
/// has the elected sign: that of the unweighted sum, positive for zero. The tasks have the same length.
template <class C>
std::vector<C> merge_tasks(std::vector<std::vector<C>> tasks, const std::vector<double>& weights,
                           const CombineOptions& options, Rng& rng) {
    const auto& traits = detail::traits_of(options.combination_type);
    for (std::vector<C>& task : tasks) {
        if (traits.pruning == detail::Pruning::magnitude) {
            prune_magnitude(task, *options.density);
        } else if (traits.pruning == detail::Pruning::random) {
            drop_and_rescale(task, *options.density, rng);
        }
    }
    const auto sign = [](double x) { return x > 0 ? 1 : x < 0 ? -1 : 0; };
    std::vector<C> merged(tasks.at(0).size());
    for (std::size_t i = 0; i < merged.size(); ++i) {
        double vote = 0, sum = 0;
        int count = 0;
        for (const std::vector<C>& task : tasks) {
            const auto value = static_cast<double>(task[i]);
            vote += options.majority_sign_method == MajoritySign::total ? value : sign(value);
        }
        for (std::size_t k = 0; k < tasks.size(); ++k) {
            const auto value = static_cast<double>(tasks[k][i]);
            if (!traits.elects_sign || sign(value) == (vote >= 0 ? 1 : -1)) {
                sum += weights[k] * value;
                ++count;
            }
        }
        merged[i] = static_cast<C>(traits.elects_sign ? sum / std::max(count, 1) : sum);
    }
    return merged;
}

namespace detail {

/// merge_tasks on tensors of one shape, each multiplied by its factor first.
template <class C, DeviceTag D>
Tensor<C, D> merge_tensors(const std::vector<Tensor<C, D>>& tensors, const std::vector<double>& factors,
                           const std::vector<double>& weights, const CombineOptions& options, Rng& rng) {
    std::vector<std::vector<C>> tasks;
    for (std::size_t k = 0; k < tensors.size(); ++k) {
        tasks.push_back((tensors[k] * factors[k]).to_vector());
    }
    return Tensor<C, D>::from(merge_tasks(std::move(tasks), weights, options, rng), tensors[0].shape());
}

/// The factors of the nearest matrix of this rank: B = U·S, A = Vᵀ.
template <class C, DeviceTag D>
LayerChange<C, D> factors_of_svd(const Svd<C, D>& svd) {
    LayerChange<C, D> factors;
    factors.a = svd.vt;
    factors.b = svd.u * svd.s;
    return factors;
}

/// Σ weight·s·BA as one product: its factors stacked.
template <class C, DeviceTag D>
LayerChange<C, D> stacked(const std::vector<LayerChange<C, D>>& sources, const std::vector<double>& weights) {
    std::vector<Tensor<C, D>> a, b;
    for (std::size_t k = 0; k < sources.size(); ++k) {
        a.push_back(sources[k].a.detach() * (weights[k] * sources[k].scale));
        b.push_back(sources[k].b.detach());
    }
    LayerChange<C, D> result;
    result.a = concat(a, 0);
    result.b = concat(b, 1);
    return result;
}

/// The same cut to a rank; the product is not formed: BA = Q_B (R_B R_Aᵀ) Q_Aᵀ.
template <class C, DeviceTag D>
LayerChange<C, D> truncated(const LayerChange<C, D>& product, std::int64_t rank) {
    const Qr<C, D> b = qr(product.b), a = qr(contiguous(transpose(product.a)));
    Svd<C, D> core = svd(matmul(b.r, transpose(a.r)), std::min({rank, b.r.size(0), a.r.size(0)}));
    core.u = matmul(b.q, core.u);
    core.vt = matmul(core.vt, transpose(a.q));
    return factors_of_svd(core);
}

/// s·BA.
template <class C, DeviceTag D>
Tensor<C, D> delta_of(const LayerChange<C, D>& source) {
    return source.delta.defined() ? source.delta : matmul(source.b.detach() * source.scale, source.a.detach());
}

} // namespace detail

/// The factors of the combined adapter at one layer, with s = 1: its α is its rank. cat, and svd where the rank allows
/// it, give Σ weightᵢ·Δᵢ. A source's own scale is part of it, so that rsLoRA and patterns of α are right; a negative
/// weight takes a change away. `path` names the layer in messages, and numbers the random stream. Throws OptionError
/// as `validate`, where the sources' ranks differ and the type needs equal ones, where a source is no product and the
/// type is not one of svd's, and for a lora_bias with pruning.
template <class C, DeviceTag D>
LayerChange<C, D> combine(const std::vector<LayerChange<C, D>>& sources, const std::vector<double>& weights,
                          const CombineOptions& options, const std::string& path) {
    validate(options, sources.size(), weights);
    const NoGrad no_grad;
    const auto& traits = detail::traits_of(options.combination_type);
    const auto refuse = [&](const std::string& what) {
        throw OptionError(lowrank::concat("combine: ", path, ": ", traits.name, ": ", what));
    };
    bool products = true, equal_ranks = true;
    std::int64_t largest = 0;
    Tensor<C, D> bias;
    for (std::size_t k = 0; k < sources.size(); ++k) {
        const LayerChange<C, D>& source = sources[k];
        products = products && !source.delta.defined();
        if (!source.delta.defined()) {
            equal_ranks = equal_ranks && sources[0].a.defined() && source.a.size(0) == sources[0].a.size(0);
            largest = std::max(largest, source.a.size(0));
        }
        if (source.b_bias.defined()) {
            if (traits.pruning != detail::Pruning::none) {
                refuse("an adapter has a lora_bias, which is not pruned; use cat, linear or svd");
            }
            const Tensor<C, D> own = source.b_bias.detach() * (weights[k] * source.scale);
            bias = bias.defined() ? bias + own : own;
        }
    }
    if (!products && !traits.on_delta) {
        refuse("an adapter is not a plain product BA (DoRA, for one); use svd, or convert it to LoRA first");
    }
    LayerChange<C, D> result;
    Rng rng(options.seed, dropout_site(path));
    if (options.combination_type == Combination::cat) {
        result = detail::stacked(sources, weights);
    } else if (traits.on_delta) {
        const std::int64_t rank = options.svd_rank > 0 ? options.svd_rank : largest;
        if (rank == 0) {
            refuse("no adapter is a plain product BA, whose rank it would take: give a rank");
        }
        if (products && options.combination_type == Combination::svd) {
            result = detail::truncated(detail::stacked(sources, weights), rank);
        } else {
            std::vector<Tensor<C, D>> deltas;
            for (const LayerChange<C, D>& source : sources) {
                deltas.push_back(detail::delta_of(source));
            }
            const std::vector<double> ones(sources.size(), 1.0);
            const Tensor<C, D> delta = detail::merge_tensors(deltas, ones, weights, options, rng);
            result = detail::factors_of_svd(svd(delta, std::min({rank, delta.size(0), delta.size(1)})));
        }
    } else {
        if (!equal_ranks) {
            refuse("the adapters' ranks differ; use cat or svd");
        }
        // s and the weight are shared out evenly, √ to each factor, their signs to A.
        std::vector<Tensor<C, D>> a, b;
        std::vector<double> a_scales, b_scales, a_weights, b_weights;
        for (std::size_t k = 0; k < sources.size(); ++k) {
            a.push_back(sources[k].a.detach());
            b.push_back(sources[k].b.detach());
            b_scales.push_back(std::sqrt(std::abs(sources[k].scale)));
            a_scales.push_back(std::copysign(b_scales.back(), sources[k].scale));
            b_weights.push_back(std::sqrt(std::abs(weights[k])));
            a_weights.push_back(std::copysign(b_weights.back(), weights[k]));
        }
        result.a = detail::merge_tensors(a, a_scales, a_weights, options, rng);
        result.b = detail::merge_tensors(b, b_scales, b_weights, options, rng);
    }
    result.b_bias = bias;
    return result;
}

} // namespace lowrank
