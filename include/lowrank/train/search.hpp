// Hyperparameter search: what settings are drawn from, and which trials successive halving trains for how long.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/core/random.hpp"

namespace lowrank {

/// What a setting is drawn from: one of some values, or any number of a range.
class SearchRange {
  public:
    /// Each value as likely as the others. Throws OptionError when there is none.
    static SearchRange choices(std::vector<double> values) {
        if (values.empty()) {
            throw OptionError("search range: found no values, expected one or more");
        }
        SearchRange range;
        range.values_ = std::move(values);
        return range;
    }
    /// Evenly from low to high. Throws OptionError unless both are finite and low ≤ high.
    static SearchRange uniform(double low, double high) { return SearchRange(low, high, false); }
    /// Evenly in the logarithm: as many values between 1e-4 and 1e-3 as between 1e-3 and 1e-2. low > 0 besides.
    static SearchRange log_uniform(double low, double high) { return SearchRange(low, high, true); }

    /// A value. Those of a range are rounded to three significant digits, so that what a table shows is the very value.
    double draw(Rng& rng) const {
        if (!values_.empty()) {
            return values_[rng.below(static_cast<std::uint32_t>(values_.size()))];
        }
        const double value =
            logarithmic_ ? std::exp(rng.uniform(std::log(low_), std::log(high_))) : rng.uniform(low_, high_);
        char text[32];
        std::snprintf(text, sizeof text, "%.2e", value);
        return std::clamp(std::strtod(text, nullptr), low_, high_);
    }

  private:
    SearchRange() = default;
    SearchRange(double low, double high, bool logarithmic) : low_(low), high_(high), logarithmic_(logarithmic) {
        if (!std::isfinite(low) || !std::isfinite(high) || low > high || (logarithmic && low <= 0)) {
            throw OptionError(concat("search range: found ", low, " to ", high, ", expected finite numbers that rise",
                                     logarithmic ? ", above 0" : ""));
        }
    }

    std::vector<double> values_;
    double low_ = 0, high_ = 0;
    bool logarithmic_ = false;
};

/// A rung of a search: so many trials are trained until each has done so many steps.
struct SearchRung {
    std::int64_t trials = 0, steps = 0;

    friend bool operator==(const SearchRung&, const SearchRung&) = default;
};

/// The rungs of successive halving. All trials begin; at the end of each rung the best 1/factor go on, to factor times
/// the steps (rounded), the last ones to `max_steps`. There are as many rungs as `trials` allow while the first one has
/// at least `min_steps`. Random search is the case of one rung: {{trials, max_steps}}. Throws OptionError unless
/// factor ≥ 2 and the others ≥ 1. Source: Jamieson and Talwalkar, "Non-stochastic best arm identification and
/// hyperparameter optimization", 2016, with the rungs of Li et al., "Hyperband", 2018.
inline std::vector<SearchRung> halving_rungs(std::int64_t trials, std::int64_t max_steps, std::int64_t factor,
                                             std::int64_t min_steps = 1) {
    if (trials < 1 || max_steps < 1 || min_steps < 1 || factor < 2) {
        throw OptionError(concat("successive halving: found ", trials, " trials, ", max_steps, " and ", min_steps,
                                 " steps, factor ", factor, ", expected 1 or more, and a factor of 2 or more"));
    }
    std::vector<std::int64_t> sizes = {trials};
    double shrink = 1; // of the first rung's steps
    while (sizes.back() / factor >= 1 &&
           static_cast<double>(max_steps) >= static_cast<double>(min_steps) * shrink * static_cast<double>(factor)) {
        sizes.push_back(sizes.back() / factor);
        shrink *= static_cast<double>(factor);
    }
    std::vector<SearchRung> rungs;
    for (const std::int64_t size : sizes) {
        rungs.push_back({size, std::llround(static_cast<double>(max_steps) / shrink)});
        shrink /= static_cast<double>(factor);
    }
    return rungs;
}

/// The places of the `count` lowest losses, the lowest first; of equal ones the earlier. What is not finite has failed
/// and is never among them.
inline std::vector<std::size_t> lowest_losses(const std::vector<double>& losses, std::size_t count) {
    std::vector<std::size_t> places;
    for (std::size_t i = 0; i < losses.size(); ++i) {
        if (std::isfinite(losses[i])) {
            places.push_back(i);
        }
    }
    std::stable_sort(places.begin(), places.end(), [&](std::size_t a, std::size_t b) { return losses[a] < losses[b]; });
    places.resize(std::min(places.size(), count));
    return places;
}

} // namespace lowrank
