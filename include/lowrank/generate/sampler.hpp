// Choosing the next token from its logits: penalty, temperature, top-k, top-p and min-p, in the order of Transformers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
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
    double min_p = 0;              ///< keep the tokens at least min_p times as likely as the most likely one
    double repetition_penalty = 1; ///< above 1: tokens that occurred become less likely (Keskar et al., CTRL, 2019)
    std::uint64_t seed = 0;
};

/// A token that may come next, and its probability.
struct Candidate {
    std::int32_t id;
    double probability;
};

/// Draws tokens. The same seed, stream and logits give the same tokens.
class Sampler {
  public:
    /// `stream` tells apart texts that are sampled with one seed. Throws OptionError for a setting outside its range.
    explicit Sampler(const SamplerOptions& options, std::uint32_t stream = 0)
        : options_(options),
          rng_(options.seed, stream) {
        const auto require = [](bool fine, const char* key, double found, const char* expected) {
            if (!fine) {
                throw OptionError(concat(key, ": found ", found, ", expected ", expected));
            }
        };
        require(options.temperature > 0 && std::isfinite(options.temperature), "temperature", options.temperature,
                "above 0 (for the most likely token use greedy)");
        require(options.top_k >= 0, "top_k", static_cast<double>(options.top_k), "0 or more");
        require(options.top_p > 0 && options.top_p <= 1, "top_p", options.top_p, "above 0 and at most 1");
        require(options.min_p >= 0 && options.min_p <= 1, "min_p", options.min_p, "0 to 1");
        require(options.repetition_penalty > 0 && std::isfinite(options.repetition_penalty), "repetition_penalty",
                options.repetition_penalty, "above 0");
    }

    /// The tokens that may come next, the most likely first, of equal ones the smaller id; their probabilities sum
    /// to 1. `logits` are those of one position, `past` the tokens before it. Throws NumericError where a logit is NaN
    /// or none is finite, ShapeError for a past token without a logit.
    std::vector<Candidate> candidates(std::span<const float> logits, std::span<const std::int32_t> past) const {
        std::vector<float> memory;
        Kept kept = keep(penalize(logits, past, memory));
        std::sort(kept.tokens.begin(), kept.tokens.end(), more_likely);
        for (Candidate& candidate : kept.tokens) {
            candidate.probability /= kept.total;
        }
        return std::move(kept.tokens);
    }

    /// The next token, drawn from the candidates. Throws as they do.
    std::int32_t next(std::span<const float> logits, std::span<const std::int32_t> past) {
        std::vector<float> memory;
        logits = penalize(logits, past, memory);
        if (options_.greedy) {
            return static_cast<std::int32_t>(best(logits) - logits.begin());
        }
        const Kept kept = keep(logits);
        double point = rng_.uniform() * kept.total;
        for (const Candidate& candidate : kept.tokens) {
            point -= candidate.probability;
            if (point < 0) {
                return candidate.id;
            }
        }
        return kept.tokens.back().id; // the probabilities were rounded
    }

  private:
    /// Tokens whose probabilities are not yet divided by their sum, which is `total`.
    struct Kept {
        std::vector<Candidate> tokens;
        double total;
    };

    static bool more_likely(const Candidate& a, const Candidate& b) {
        return a.probability != b.probability ? a.probability > b.probability : a.id < b.id;
    }

    /// The logits themselves, or where there is a penalty its effect on them, in `memory`.
    std::span<const float> penalize(std::span<const float> logits, std::span<const std::int32_t> past,
                                    std::vector<float>& memory) const {
        if (options_.repetition_penalty == 1) {
            return logits;
        }
        memory.assign(logits.begin(), logits.end());
        const auto penalty = static_cast<float>(options_.repetition_penalty);
        for (const std::int32_t id : std::set<std::int32_t>(past.begin(), past.end())) {
            if (id < 0 || static_cast<std::size_t>(id) >= logits.size()) {
                throw ShapeError(concat("sampling: past token ", id, ", but there are ", logits.size(), " logits"));
            }
            float& logit = memory[static_cast<std::size_t>(id)];
            logit = logit < 0 ? logit * penalty : logit / penalty;
        }
        return memory;
    }

    /// The first of the largest logits.
    static std::span<const float>::iterator best(std::span<const float> logits) {
        const auto found = std::max_element(logits.begin(), logits.end());
        const auto is_nan = [](float logit) { return std::isnan(logit); };
        if (found == logits.end() || !std::isfinite(*found) || std::any_of(logits.begin(), logits.end(), is_nan)) {
            throw NumericError("sampling: the logits of the next token are not finite");
        }
        return found;
    }

    /// What the settings leave, in some order; probabilities are relative to that of the most likely token.
    Kept keep(std::span<const float> logits) const {
        const auto first = best(logits);
        if (options_.greedy) {
            return {{{static_cast<std::int32_t>(first - logits.begin()), 1.0}}, 1.0};
        }
        const float least = options_.top_k > 0 ? top_k_least(logits) : -INFINITY;
        Kept kept{{}, 0};
        for (std::size_t id = 0; id < logits.size(); ++id) {
            const double distance = static_cast<double>(logits[id]) - static_cast<double>(*first);
            const double probability = logits[id] >= least ? std::exp(distance / options_.temperature) : 0;
            if (probability > 0) {
                kept.tokens.push_back({static_cast<std::int32_t>(id), probability});
                kept.total += probability;
            }
        }
        if (options_.top_p < 1) {
            keep_nucleus(kept);
        }
        if (options_.min_p > 0) {
            std::erase_if(kept.tokens, [&](const Candidate& c) { return c.probability < options_.min_p; });
            kept.total = 0;
            for (const Candidate& candidate : kept.tokens) {
                kept.total += candidate.probability;
            }
        }
        return kept;
    }

    /// The smallest logit that top_k keeps.
    float top_k_least(std::span<const float> logits) const {
        std::vector<float> order(logits.begin(), logits.end());
        const std::int64_t last = std::min(options_.top_k, static_cast<std::int64_t>(order.size())) - 1;
        std::nth_element(order.begin(), order.begin() + last, order.end(), std::greater<>());
        return order[static_cast<std::size_t>(last)];
    }

    /// Keeps the fewest tokens whose probabilities reach top_p. Sorts only as many as that takes, for vocabularies are
    /// large and what is kept is mostly small.
    void keep_nucleus(Kept& kept) const {
        const auto begin = kept.tokens.begin();
        const auto count = std::ssize(kept.tokens);
        const double enough = options_.top_p * kept.total;
        std::ptrdiff_t taken = 0, sorted = 0;
        for (kept.total = 0; taken < count && kept.total < enough; ++taken) {
            if (taken == sorted) {
                const std::ptrdiff_t more = std::min(count, std::max<std::ptrdiff_t>(64, 4 * sorted));
                std::nth_element(begin + sorted, begin + (more - 1), kept.tokens.end(), more_likely);
                std::sort(begin + sorted, begin + more, more_likely);
                sorted = more;
            }
            kept.total += begin[taken].probability;
        }
        kept.tokens.resize(static_cast<std::size_t>(taken));
    }

    SamplerOptions options_;
    Rng rng_;
};

} // namespace lowrank
