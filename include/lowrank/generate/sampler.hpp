// Choosing the next token from its logits: penalty, temperature, top-k and top-p, in the order of Transformers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/core/random.hpp"

namespace lowrank {

/// How tokens are drawn; names and meanings are those of Transformers' GenerationConfig.
struct SamplerOptions {
    bool greedy = false;           ///< the most likely token always
    double temperature = 1;        ///< logits are divided by it
    std::int64_t top_k = 0;        ///< keep the k most likely tokens, and what equals the last of them; 0 keeps all
    double top_p = 1;              ///< keep the most likely tokens whose probabilities sum to at least p
    double repetition_penalty = 1; ///< above 1: tokens that occurred become less likely (Keskar et al., CTRL, 2019)
    std::uint64_t seed = 0;
};

/// A token that may come next, and its probability.
struct Candidate {
    std::int32_t id;
    double probability;
};

/// Draws tokens. The same seed and logits give the same tokens.
class Sampler {
  public:
    /// Throws OptionError for a setting outside its range.
    explicit Sampler(const SamplerOptions& options) : options_(options), rng_(options.seed) {
        const auto require = [](bool fine, const char* key, double found, const char* expected) {
            if (!fine) {
                throw OptionError(concat(key, ": found ", found, ", expected ", expected));
            }
        };
        require(options.temperature > 0 && std::isfinite(options.temperature), "temperature", options.temperature,
                "above 0 (for the most likely token use greedy)");
        require(options.top_k >= 0, "top_k", static_cast<double>(options.top_k), "0 or more");
        require(options.top_p > 0 && options.top_p <= 1, "top_p", options.top_p, "above 0 and at most 1");
        require(options.repetition_penalty > 0 && std::isfinite(options.repetition_penalty), "repetition_penalty",
                options.repetition_penalty, "above 0");
    }

    /// The tokens that may come next, the most likely first; their probabilities sum to 1. `logits` are those of one
    /// position, `past` the tokens before it. Throws NumericError where a logit is NaN or none is finite, ShapeError
    /// for a past token without a logit.
    std::vector<Candidate> candidates(std::vector<float> logits, std::span<const std::int32_t> past) const {
        penalize(logits, past);
        const auto best = std::max_element(logits.begin(), logits.end());
        const auto is_nan = [](float logit) { return std::isnan(logit); };
        if (best == logits.end() || !std::isfinite(*best) || std::any_of(logits.begin(), logits.end(), is_nan)) {
            throw NumericError("sampling: the logits of the next token are not finite");
        }
        if (options_.greedy) {
            return {{static_cast<std::int32_t>(best - logits.begin()), 1.0}};
        }
        std::vector<Candidate> found;
        double total = 0;
        for (const std::int32_t id : most_likely(logits)) {
            const double logit = logits[static_cast<std::size_t>(id)];
            const double weight = std::exp((logit - static_cast<double>(*best)) / options_.temperature);
            if (weight > 0) {
                found.push_back({id, weight});
                total += weight;
            }
        }
        if (options_.top_p < 1) {
            double sum = 0;
            std::size_t kept = 0;
            while (kept < found.size() && sum < options_.top_p * total) {
                sum += found[kept++].probability;
            }
            found.resize(kept);
            total = sum;
        }
        for (Candidate& candidate : found) {
            candidate.probability /= total;
        }
        return found;
    }

    /// The next token, drawn from the candidates. Throws as they do.
    std::int32_t next(std::vector<float> logits, std::span<const std::int32_t> past) {
        const std::vector<Candidate> found = candidates(std::move(logits), past);
        double point = rng_.uniform();
        for (const Candidate& candidate : found) {
            point -= candidate.probability;
            if (point < 0) {
                return candidate.id;
            }
        }
        return found.back().id; // the probabilities were rounded
    }

  private:
    void penalize(std::vector<float>& logits, std::span<const std::int32_t> past) const {
        if (options_.repetition_penalty == 1) {
            return;
        }
        const auto penalty = static_cast<float>(options_.repetition_penalty);
        for (const std::int32_t id : std::set<std::int32_t>(past.begin(), past.end())) {
            if (id < 0 || static_cast<std::size_t>(id) >= logits.size()) {
                throw ShapeError(concat("sampling: past token ", id, ", but there are ", logits.size(), " logits"));
            }
            float& logit = logits[static_cast<std::size_t>(id)];
            logit = logit < 0 ? logit * penalty : logit / penalty;
        }
    }

    /// The ids that top_k keeps, the most likely first; of equal ones the smaller id first.
    std::vector<std::int32_t> most_likely(const std::vector<float>& logits) const {
        const auto logit = [&](std::int32_t id) { return logits[static_cast<std::size_t>(id)]; };
        const auto more_likely = [&](std::int32_t a, std::int32_t b) {
            return logit(a) != logit(b) ? logit(a) > logit(b) : a < b;
        };
        std::vector<std::int32_t> order(logits.size());
        std::iota(order.begin(), order.end(), 0);
        if (options_.top_k > 0 && options_.top_k < static_cast<std::int64_t>(order.size())) {
            const auto last = order.begin() + (options_.top_k - 1);
            std::nth_element(order.begin(), last, order.end(), more_likely);
            const float least = logit(*last);
            order.erase(std::partition(last + 1, order.end(), [&](std::int32_t id) { return logit(id) == least; }),
                        order.end());
        }
        std::sort(order.begin(), order.end(), more_likely);
        return order;
    }

    SamplerOptions options_;
    Rng rng_;
};

} // namespace lowrank
