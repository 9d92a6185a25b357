// EVA: factors that start as the directions in which the inputs of the layers vary most, on real data.
// Paischer et al., "Parameter efficient fine-tuning via explained variance adaptation", 2024.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/adapters/initial_pissa.hpp"
#include "lowrank/nn/linear.hpp"
#include "lowrank/ops/gather.hpp"

namespace lowrank {

/// PEFT's EvaConfig.
struct EvaOptions {
    double rho = 2;      ///< a layer gets at most rho times its rank
    double tau = 0.99;   ///< enough data was seen when directions change by less than this cosine from batch to batch
    bool whiten = false; ///< divide each direction by the root of its singular value
    bool adjust_scaling_factors = true; ///< a layer's α follows its rank
};

/// What is known of a layer's inputs: how many, their sum, and the sum of their outer products.
template <DeviceTag D>
class InputStatistics {
  public:
    /// Adds rows [n, in].
    template <class T>
    void add(const Tensor<T, D>& rows) {
        const Tensor<double, D> x = cast<double>(contiguous(rows));
        const Tensor<double, D> products = matmul(transpose(x), x), total = sum(x, {0});
        products_ = count_ == 0 ? products : products_ + products;
        total_ = count_ == 0 ? total : total_ + total;
        count_ += rows.size(0);
    }

    std::int64_t count() const { return count_; }

    /// Σ (x − mean)(x − mean)ᵀ [in, in].
    Tensor<double, D> scatter() const {
        const std::int64_t in = total_.size(0);
        return products_ - reshape(total_, {in, 1}) * reshape(total_, {1, in}) * (1.0 / static_cast<double>(count_));
    }

  private:
    Tensor<double, D> products_, total_;
    std::int64_t count_ = 0;
};

/// An adapter that changes nothing and records what goes into its layer.
template <class T, DeviceTag D>
class InputRecorder final : public LinearAdapter<T, D> {
  public:
    using C = compute_t<T>;

    /// `rows` are the numbers of the tokens that count, in the flattened batch; all where undefined.
    explicit InputRecorder(std::shared_ptr<const Tensor<std::int32_t, D>> rows) : rows_(std::move(rows)) {}

    Tensor<T, D> forward(const Linear<T, D>& layer, const Tensor<T, D>& x, const Epilogue<T, D>& epilogue,
                         const ForwardContext<D>&) const override {
        const Tensor<T, D> flat = reshape(contiguous(x.detach()), {-1, x.size(-1)});
        statistics_.add(rows_->defined() ? index_select(flat, 0, *rows_) : flat);
        return linear(x, layer.weight, epilogue);
    }
    Tensor<C, D> merged(const Linear<T, D>& layer) const override { return dense_values(layer.weight); }
    void parameters(const std::function<void(const std::string&, Tensor<C, D>&)>&) override {}

    const InputStatistics<D>& statistics() const { return statistics_; }

  private:
    std::shared_ptr<const Tensor<std::int32_t, D>> rows_;
    mutable InputStatistics<D> statistics_; // a forward pass changes nothing else
};

/// The directions of one layer, as far as they may be needed.
template <DeviceTag D>
struct EvaDirections {
    Tensor<double, D> rows;        ///< [components, in], the largest first
    std::vector<double> explained; ///< each one's share of the variance
    std::vector<double> singular;  ///< singular values of the centred inputs
};

/// The `components` directions of largest variance.
template <DeviceTag D>
EvaDirections<D> eva_directions(const InputStatistics<D>& statistics, std::int64_t components) {
    const Tensor<double, D> scatter = statistics.scatter();
    const std::int64_t in = scatter.size(0);
    const Svd<double, D> found = randomized_svd(scatter, std::min(components, in), 8, 0);
    double total = 0;
    const std::vector<double> values = scatter.to_vector();
    for (std::int64_t i = 0; i < in; ++i) {
        total += values[static_cast<std::size_t>(i * in + i)];
    }
    EvaDirections<D> directions{found.vt, {}, {}};
    for (const double value : found.s.to_vector()) {
        directions.explained.push_back(total > 0 ? value / total : 0);
        directions.singular.push_back(std::sqrt(value));
    }
    return directions;
}

/// How many directions each layer gets when as many as `budget` are given to those that explain most of their layer's
/// variance; some may get none.
template <DeviceTag D>
std::vector<std::int64_t> eva_ranks(const std::vector<EvaDirections<D>>& layers, std::int64_t budget) {
    std::vector<std::pair<double, std::size_t>> all; // in the order of the layers: a stable sort keeps it for equals
    for (std::size_t k = 0; k < layers.size(); ++k) {
        for (const double share : layers[k].explained) {
            all.emplace_back(share, k);
        }
    }
    std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
    all.resize(std::min(all.size(), static_cast<std::size_t>(budget)));
    std::vector<std::int64_t> ranks(layers.size());
    for (const auto& entry : all) {
        ++ranks[entry.second];
    }
    return ranks;
}

/// Whether the first `rank` directions are, but for their sign, those of before.
template <DeviceTag D>
bool eva_converged(const EvaDirections<D>& before, const EvaDirections<D>& now, std::int64_t rank, double tau) {
    const std::vector<double> cosines = sum(before.rows * now.rows, {1}).to_vector();
    return std::all_of(cosines.begin(), cosines.begin() + rank, [&](double c) { return std::abs(c) >= tau; });
}

/// attach_adapter for factors that start as EVA's: A is the directions of a layer's inputs, B = 0. Ranks move to the
/// layers whose directions explain most, at most `rho` times a layer's own; a layer that gets none is not adapted.
/// `next(rows)` runs the model on the next batch of data, after it put the numbers of the tokens that count, in the
/// flattened batch, into `rows` (nothing: all of them); false says that there is no more. Batches are taken until the
/// directions change by less than `tau`. Returns the settings with the new ranks, alphas and targets. Throws as
/// attach_adapter, OptionError for settings outside their ranges, and NumericError where no data came.
template <class T, DeviceTag D, Module M, class Next>
LoraConfig attach_eva(M& model, const LoraConfig& config, std::uint64_t seed, const EvaOptions& options,
                      const Next& next) {
    using C = compute_t<T>;
    if (!(options.rho >= 1) || !(options.tau > 0 && options.tau <= 1)) {
        throw OptionError(concat("eva: found rho ", options.rho, " and tau ", options.tau,
                                 ", expected a rho of 1 or more and a tau above 0 and at most 1"));
    }
    LoraConfig result = detail::drawn_start(config);
    attach_adapter<T, D>(model, result, seed); // checks everything, and says which layers it adapts
    const auto rows = std::make_shared<Tensor<std::int32_t, D>>();
    std::vector<std::string> paths;
    std::vector<std::shared_ptr<InputRecorder<T, D>>> recorders;
    std::vector<std::int64_t> most;
    std::int64_t budget = 0;
    for_each<Linear<T, D>>(model, [&](const std::string& path, Linear<T, D>& layer) {
        if (layer.adapter) {
            paths.push_back(path);
            recorders.push_back(std::make_shared<InputRecorder<T, D>>(rows));
            layer.adapter = recorders.back();
            most.push_back( // as Python rounds
                static_cast<std::int64_t>(std::nearbyint(static_cast<double>(rank_at(config, path)) * options.rho)));
            budget += rank_at(config, path);
        }
    });
    std::vector<EvaDirections<D>> directions;
    std::vector<std::int64_t> ranks;
    {
        const NoGrad no_grad;
        for (bool converged = false; !converged && next(*rows);) {
            std::vector<EvaDirections<D>> before = std::exchange(directions, {});
            converged = !before.empty();
            for (std::size_t k = 0; k < recorders.size(); ++k) {
                directions.push_back(eva_directions(recorders[k]->statistics(), most[k]));
                converged = converged && eva_converged(before[k], directions[k], ranks[k], options.tau);
            }
            ranks = eva_ranks(directions, budget);
        }
    }
    if (directions.empty()) {
        throw NumericError("eva: no data to start from");
    }
    result.rank_pattern.clear();
    result.alpha_pattern.clear();
    std::vector<std::string> kept;
    const auto keep = [&](const std::string& path, std::int64_t rank, double alpha) {
        kept.push_back(path);
        if (rank != config.r) {
            result.rank_pattern.emplace_back(path, rank);
        }
        if (alpha != config.lora_alpha) {
            result.alpha_pattern.emplace_back(path, alpha);
        }
    };
    std::map<std::string, Tensor<C, D>> starts;
    for (std::size_t k = 0; k < paths.size(); ++k) {
        const std::int64_t before = rank_at(config, paths[k]), rank = ranks[k];
        if (rank == 0) {
            continue;
        }
        const double more = static_cast<double>(rank) / static_cast<double>(before);
        keep(paths[k], rank, alpha_at(config, paths[k]) * (options.adjust_scaling_factors ? more : 1));
        Tensor<double, D> a = slice(directions[k].rows, 0, 0, rank);
        if (options.whiten) {
            std::vector<double> inverse;
            for (std::int64_t i = 0; i < rank; ++i) {
                const double root = std::sqrt(directions[k].singular[static_cast<std::size_t>(i)]);
                inverse.push_back(root > 0 ? 1 / root : 0);
            }
            a = a * Tensor<double, D>::from(inverse, {rank, 1});
        }
        starts[paths[k]] = cast<C>(contiguous(a));
    }
    for_each<Embedding<T, D>>(model, [&](const std::string& path, const Embedding<T, D>& layer) {
        if (layer.adapter) { // they start as always
            keep(path, rank_at(config, path), alpha_at(config, path));
        }
    });
    result.target_modules = kept;
    result.exclude_modules = std::nullopt;
    result.layers_to_transform = std::nullopt;
    result.layers_pattern.clear();
    attach_adapter<T, D>(model, result, seed);
    for_each<Linear<T, D>>(model, [&](const std::string& path, Linear<T, D>& layer) {
        if (layer.adapter) {
            const Tensor<C, D> b = Tensor<C, D>::zeros({layer.weight.out(), starts.at(path).size(0)});
            detail::set_factors(*layer.adapter, LoraStart<C, D>{starts.at(path), b});
        }
    });
    return result;
}

} // namespace lowrank
