// Rows of an embedding table by index, and the sum of gradients back into them, on the host.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "lowrank/backend/cpu/reduce.hpp"
#include "lowrank/core/parallel.hpp"
#include "lowrank/tensor/weight.hpp"

namespace lowrank {

/// y[i, :] = table[ids[i], :] for a frozen weight [rows, n] of any storage; gather_rows does the same for values.
template <class T>
void embedding_rows(Cpu, std::int64_t count, const std::int32_t* ids, const Weight<Cpu>& table, T* y) {
    const std::int64_t n = table.in();
    parallel_chunks(count, 64, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            table.read({ids[i], 1, 0, n, n, 1}, y + i * n);
        }
    });
}

/// dtable[id, :] = the sum of the rows dy[i, :] with ids[i] = id, in their order and in double; rows of other ids are
/// left as they are.
template <class C, class T>
void embedding_backward(Cpu, std::int64_t count, std::int64_t n, const std::int32_t* ids, const T* dy, C* dtable) {
    std::vector<std::int64_t> order(static_cast<std::size_t>(count));
    std::iota(order.begin(), order.end(), std::int64_t(0));
    std::stable_sort(order.begin(), order.end(), [=](std::int64_t a, std::int64_t b) { return ids[a] < ids[b]; });
    std::vector<std::size_t> first; // of each id in `order`
    for (std::size_t i = 0; i < order.size(); ++i) {
        if (i == 0 || ids[order[i]] != ids[order[i - 1]]) {
            first.push_back(i);
        }
    }
    first.push_back(order.size());
    parallel_chunks(static_cast<std::int64_t>(first.size()) - 1, 16, [&](std::int64_t begin, std::int64_t end) {
        std::vector<double> sums(static_cast<std::size_t>(n));
        for (std::int64_t group = begin; group < end; ++group) {
            std::fill(sums.begin(), sums.end(), 0.0);
            for (std::size_t i = first[std::size_t(group)]; i < first[std::size_t(group) + 1]; ++i) {
                detail::add_to_sums(dy + order[i] * n, n, sums.data());
            }
            std::transform(sums.begin(), sums.end(), dtable + ids[order[first[std::size_t(group)]]] * n,
                           convert<C, double>);
        }
    });
}

} // namespace lowrank
