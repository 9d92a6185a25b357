// The order of rows: seeded shuffling by epoch and the seeded evaluation split, the same on every platform.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/core/random.hpp"
#include "lowrank/data/example.hpp"

namespace lowrank {

namespace detail {
// Streams of the run's seed that no other user of random numbers takes: one for the split, and from each of the others
// on one for each epoch.
inline constexpr std::uint32_t split_stream = 0x53504c54u;   // "SPLT"
inline constexpr std::uint32_t shuffle_stream = 0x80000000u; // + epoch
inline constexpr std::uint32_t group_stream = 0xC0000000u;   // + epoch
} // namespace detail

/// A random permutation of 0 … n − 1: Fisher–Yates from the end, index i swapped with Rng(seed, stream).below(i + 1).
inline std::vector<std::size_t> permutation(std::size_t n, std::uint64_t seed, std::uint32_t stream) {
    if (n > std::numeric_limits<std::uint32_t>::max()) {
        throw OptionError(concat("permutation: found ", n, " rows, expected fewer than 2^32"));
    }
    std::vector<std::size_t> order(n);
    std::iota(order.begin(), order.end(), std::size_t(0));
    Rng random(seed, stream);
    for (std::size_t i = n; i-- > 1;) {
        std::swap(order[i], order[random.below(static_cast<std::uint32_t>(i + 1))]);
    }
    return order;
}

/// The order in which epoch `epoch` (from 0) visits n rows: a pure function of its arguments.
inline std::vector<std::size_t> epoch_order(std::size_t n, std::uint64_t seed, std::int64_t epoch, bool shuffle) {
    if (shuffle) {
        return permutation(n, seed, detail::shuffle_stream + static_cast<std::uint32_t>(epoch));
    }
    std::vector<std::size_t> order(n);
    std::iota(order.begin(), order.end(), std::size_t(0));
    return order;
}

/// Brings rows of like length together, so that batches need little padding: `order` is cut into pools of 50 steps,
/// each pool sorted by length, and the steps (of `step_rows` rows) visited in a random order again; a last step that is
/// not full stays last. A pure function of its arguments.
inline std::vector<std::size_t> group_by_length(std::vector<std::size_t> order, const Dataset& data,
                                                std::size_t step_rows, std::uint64_t seed, std::int64_t epoch) {
    constexpr std::size_t steps_of_pool = 50; // as in Transformers: random enough, and little padding
    const std::size_t pool = steps_of_pool * step_rows;
    const auto at = [&](std::size_t i) { return order.begin() + static_cast<std::ptrdiff_t>(i); };
    for (std::size_t begin = 0; begin < order.size(); begin += pool) {
        std::stable_sort(at(begin), at(std::min(begin + pool, order.size())), [&](std::size_t a, std::size_t b) {
            return data.examples[a].input_ids.size() > data.examples[b].input_ids.size();
        });
    }
    std::vector<std::size_t> grouped;
    grouped.reserve(order.size());
    const std::size_t full_steps = order.size() / step_rows;
    for (const std::size_t step :
         permutation(full_steps, seed, detail::group_stream + static_cast<std::uint32_t>(epoch))) {
        grouped.insert(grouped.end(), at(step * step_rows), at((step + 1) * step_rows));
    }
    grouped.insert(grouped.end(), at(full_steps * step_rows), order.end());
    return grouped;
}

/// Training and evaluation rows.
struct DatasetSplit {
    Dataset train, eval;
};

/// Sets a random `fraction` of the rows (rounded to the nearest number, at least one) aside for evaluation. Both parts
/// keep the order of the file; `train` keeps the counts. Throws OptionError unless 0 < fraction < 1 and both parts have
/// rows.
inline DatasetSplit split_dataset(Dataset data, double fraction, std::uint64_t seed) {
    if (!(fraction > 0 && fraction < 1)) {
        throw OptionError(concat("eval_split: found ", fraction, ", expected more than 0 and less than 1"));
    }
    const std::size_t n = data.size();
    const auto wanted = static_cast<std::size_t>(std::llround(fraction * static_cast<double>(n)));
    const std::size_t held = wanted == 0 ? 1 : wanted;
    if (held >= n) {
        throw OptionError(concat("eval_split: found ", n, " rows, of which ", fraction,
                                 " leaves none for training, expected more rows or a smaller fraction"));
    }
    const std::vector<std::size_t> order = permutation(n, seed, detail::split_stream);
    std::vector<bool> is_eval(n, false);
    for (std::size_t i = 0; i < held; ++i) {
        is_eval[order[i]] = true;
    }
    DatasetSplit split;
    split.train.counts = data.counts;
    for (Dataset* part : {&split.train, &split.eval}) {
        part->files = data.files;
        part->is_templated = data.is_templated;
    }
    for (std::size_t i = 0; i < n; ++i) {
        Dataset& part = is_eval[i] ? split.eval : split.train;
        part.examples.push_back(std::move(data.examples[i]));
        part.origins.push_back(data.origins[i]);
    }
    return split;
}

} // namespace lowrank
