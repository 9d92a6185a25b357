// Packing: several rows in one, with the places where each begins, so that batches need little padding.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/data/example.hpp"

namespace lowrank {

/// Which rows share a packed one: best-fit decreasing. Rows of these `lengths`, the longest first, go where the least
/// room that is enough remains, or into a new bin of `capacity`; one that is longer has a bin of its own. The bins and
/// the rows in each are in the order of the data, so that the result is a function of the lengths alone. O(n log n).
inline std::vector<std::vector<std::size_t>> pack_lengths(const std::vector<std::size_t>& lengths,
                                                          std::size_t capacity) {
    std::vector<std::size_t> order(lengths.size());
    std::iota(order.begin(), order.end(), std::size_t(0));
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return lengths[a] > lengths[b]; });
    std::vector<std::vector<std::size_t>> bins;
    std::set<std::pair<std::size_t, std::size_t>> rooms; // what remains of a bin, and which it is
    for (const std::size_t row : order) {
        const auto found = rooms.lower_bound({lengths[row], 0});
        std::size_t room = std::max(capacity, lengths[row]), bin = bins.size();
        if (found == rooms.end()) {
            bins.emplace_back();
        } else {
            std::tie(room, bin) = *found;
            rooms.erase(found);
        }
        bins[bin].push_back(row);
        rooms.insert({room - lengths[row], bin});
    }
    for (auto& bin : bins) {
        std::sort(bin.begin(), bin.end());
    }
    std::sort(bins.begin(), bins.end());
    return bins;
}

/// `data` with its rows packed into fewer of at most `max_length` tokens (a longer row stays alone). Each row of the
/// result knows where its documents begin (Example::document_starts): attention and positions begin anew there, so that
/// loss and gradients are those of the separate rows. The first label of every document becomes ignored, for no token
/// predicts it. A row's origin is that of its first document. Throws OptionError for a max_length below 1.
inline Dataset pack_dataset(const Dataset& data, std::int64_t max_length) {
    if (max_length < 1) {
        throw OptionError(concat("packing: found max_length ", max_length, ", expected 1 or more"));
    }
    std::vector<std::size_t> lengths;
    for (const Example& row : data.examples) {
        lengths.push_back(row.input_ids.size());
    }
    Dataset packed;
    packed.files = data.files;
    packed.counts = data.counts;
    packed.is_templated = data.is_templated;
    for (const auto& bin : pack_lengths(lengths, static_cast<std::size_t>(max_length))) {
        Example all;
        for (const std::size_t row : bin) {
            const Example& example = data.examples[row];
            const std::size_t begin = all.input_ids.size();
            all.document_starts.push_back(static_cast<std::int32_t>(begin));
            all.input_ids.insert(all.input_ids.end(), example.input_ids.begin(), example.input_ids.end());
            all.labels.insert(all.labels.end(), example.labels.begin(), example.labels.end());
            all.labels[begin] = ignored_label;
        }
        packed.examples.push_back(std::move(all));
        packed.origins.push_back(data.origins[bin.front()]);
    }
    return packed;
}

} // namespace lowrank
