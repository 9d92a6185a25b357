// Choosing the next token from its logits: penalty, temperature, top-k and top-p, in the order of Transformers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <set>
#include <span>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/core/random.hpp"

namespace lowrank {

/// How tokens are drawn; names and meanings are those of Transformers' GenerationConfig.
struct SamplerOptions {
    bool greedy = false;           ///< the most likely token always
    double temperature = 1;        ///< logits are divided by it
    std::int64_t top_k = 0;        ///< keep the k most likely tokens; 0 keeps all
    double top_p = 1;              ///< keep the most likely tokens whose probabilities sum to at least p
    double repetition_penalty = 1; ///< above 1: tokens that occurred become less likely (Keskar et al., CTRL, 2019)
    std::uint64_t seed = 0;
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

    /// The next token for the logits of one position; `past` are the tokens before it. Throws NumericError where no
    /// logit is finite.
    std::int32_t next(std::vector<float> logits, std::span<const std::int32_t> past) {
        if (options_.repetition_penalty != 1) {
            for (const std::int32_t id : std::set<std::int32_t>(past.begin(), past.end())) {
                float& logit = logits.at(static_cast<std::size_t>(id));
                const auto penalty = static_cast<float>(options_.repetition_penalty);
                logit = logit < 0 ? logit * penalty : logit / penalty;
            }
        }
        const auto best = std::max_element(logits.begin(), logits.end());
        if (best == logits.end() || !std::isfinite(*best)) {
            throw NumericError("sampling: the logits of the next token are not finite");
        }
        if (options_.greedy) {
            return static_cast<std::int32_t>(best - logits.begin());
        }
        return draw(logits);
    }

  private:
    std::int32_t draw(const std::vector<float>& logits) {
        std::vector<std::int32_t> order(logits.size());
        std::iota(order.begin(), order.end(), 0);
        const auto more_likely = [&](std::int32_t a, std::int32_t b) {
            const float la = logits[static_cast<std::size_t>(a)], lb = logits[static_cast<std::size_t>(b)];
            return la != lb ? la > lb : a < b;
        };
        if (options_.top_k > 0 && options_.top_k < static_cast<std::int64_t>(order.size())) {
            std::nth_element(order.begin(), order.begin() + options_.top_k, order.end(), more_likely);
            order.resize(static_cast<std::size_t>(options_.top_k));
        }
        std::sort(order.begin(), order.end(), more_likely);
        const double top = logits[static_cast<std::size_t>(order.front())];
        std::vector<double> weights;
        double total = 0;
        for (const std::int32_t id : order) {
            weights.push_back(std::exp((logits[static_cast<std::size_t>(id)] - top) / options_.temperature));
            total += weights.back();
        }
        if (options_.top_p < 1) {
            double sum = 0;
            std::size_t kept = 0;
            while (kept < weights.size() && sum < options_.top_p * total) {
                sum += weights[kept++];
            }
            weights.resize(kept);
            total = sum;
        }
        double point = rng_.uniform() * total;
        for (std::size_t i = 0; i + 1 < weights.size(); ++i) {
            point -= weights[i];
            if (point < 0) {
                return order[i];
            }
        }
        return order[weights.size() - 1];
    }

    SamplerOptions options_;
    Rng rng_;
};

} // namespace lowrank
