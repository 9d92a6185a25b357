// Kernels along one dimension of memory [outer, n, inner] on the host: running sums, gathering, scattering.
#pragma once

#include <algorithm>
#include <atomic>
#include <concepts>
#include <cstdint>
#include <vector>

#include "lowrank/backend/cpu/arithmetic.hpp"
#include "lowrank/backend/cpu/reduce.hpp"
#include "lowrank/core/device.hpp"

namespace lowrank {
namespace detail {

/// Lines along the middle dimension that one task walks together, so that memory is read in runs.
inline constexpr std::int64_t most_lines = 64;

/// Calls `body(o, first, count)` for blocks of at most `width` neighbouring lines first … first + count - 1 of the
/// outer index o, in parallel.
template <class Body>
void for_lines(std::int64_t outer, std::int64_t length, std::int64_t inner, std::int64_t width, const Body& body) {
    const std::int64_t blocks = (inner + width - 1) / width;
    const std::int64_t work = std::max<std::int64_t>(1, length * std::min(inner, width));
    parallel_chunks(outer * blocks, std::max<std::int64_t>(1, elementwise_grain / work),
                    [&](std::int64_t begin, std::int64_t end) {
                        for (std::int64_t block = begin; block < end; ++block) {
                            const std::int64_t first = block % blocks * width;
                            body(block / blocks, first, std::min(width, inner - first));
                        }
                    });
}

/// y = the running sums, in double, of `count` lines of n elements that lie `step` apart, the lines `apart`.
struct RunningSums {
    template <int Width, class T>
    LOWRANK_INLINE static void run(const T* x, T* y, std::int64_t n, std::int64_t step, std::int64_t count,
                                   std::int64_t apart) {
        double sums[most_lines] = {};
        for (std::int64_t j = 0; j < n; ++j) {
            const T* from = x + j * step;
            T* to = y + j * step;
            std::int64_t line = 0;
            if constexpr (std::floating_point<T>) { // which double lanes are stored as
                using V = simd::Vec<double, Width / 2>;
                for (; apart == 1 && line + V::size <= count; line += V::size) {
                    const V sum = simd::load<V>(sums + line) + simd::load<V>(from + line);
                    simd::store(sum, sums + line);
                    simd::store(sum, to + line);
                }
            }
            for (; line < count; ++line) {
                sums[line] += convert<double>(from[line * apart]);
                to[line * apart] = convert<T>(sums[line]);
            }
        }
    }
};

} // namespace detail

/// y[o, j, i] = the sum, in double, of x[o, 0 … j, i], or of x[o, j … n-1, i] when backwards.
template <class T>
void cumulative_sum(Cpu, std::int64_t outer, std::int64_t n, std::int64_t inner, const T* x, T* y, bool backwards) {
    // A few lines at once hide the latency of an addition, and where lines are neighbours in memory, many make vectors.
    const bool neighbours = inner > 1;
    const std::int64_t groups = neighbours ? outer : 1, lines = neighbours ? inner : outer;
    const std::int64_t width = neighbours ? detail::most_lines : 8, apart = neighbours ? 1 : n;
    detail::for_lines(groups, n, lines, width, [=](std::int64_t group, std::int64_t first, std::int64_t count) {
        const std::int64_t at = group * n * lines + first * apart + (backwards && n > 0 ? (n - 1) * inner : 0);
        simd::run_for_isa<detail::RunningSums>(x + at, y + at, n, backwards ? -inner : inner, count, apart);
    });
}

/// y[o, j, i] = x[o, index, i] for j < m, the index read at o · outer_step + j · step + i · inner_step.
template <class T, class I>
void gather_lines(Cpu, std::int64_t outer, std::int64_t n, std::int64_t m, std::int64_t inner, const I* index,
                  std::int64_t outer_step, std::int64_t step, std::int64_t inner_step, const T* x, T* y) {
    const std::int64_t grain = std::max<std::int64_t>(1, elementwise_grain / std::max<std::int64_t>(1, inner));
    parallel_chunks(outer * m, grain, [=](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row) {
            const std::int64_t o = row / m, j = row % m;
            const I* at = index + o * outer_step + j * step;
            const T* from = x + o * n * inner;
            T* to = y + row * inner;
            if (inner_step == 0) {
                std::copy_n(from + *at * inner, inner, to);
                continue;
            }
            for (std::int64_t i = 0; i < inner; ++i) {
                to[i] = from[at[i * inner_step] * inner + i];
            }
        }
    });
}

/// Writes to `position` where the first of `count` indices lies that is negative or n or more; `count` where none is.
template <class I>
void first_outside(Cpu, std::int64_t count, const I* index, std::int64_t n, std::int64_t* position) {
    std::atomic<std::int64_t> first = count;
    parallel_chunks(count, elementwise_grain, [&](std::int64_t begin, std::int64_t end) {
        const I* found = std::find_if(index + begin, index + end, [n](I value) { return value < 0 || value >= n; });
        std::int64_t at = found == index + end ? count : found - index, before = first;
        while (at < before && !first.compare_exchange_weak(before, at)) {
        }
    });
    *position = first;
}

/// Adds x[o, j, i], j < m, to y[o, index, i], or writes it there when `replace`, y being [outer, n, inner] and the
/// index read as by gather_lines. Sums are taken in double and in the order of j, and the last one written stays.
template <class T, class I>
void scatter_lines(Cpu, std::int64_t outer, std::int64_t n, std::int64_t m, std::int64_t inner, const I* index,
                   std::int64_t outer_step, std::int64_t step, std::int64_t inner_step, bool replace, const T* x,
                   T* y) {
    if (m == 1) { // one for each line: there is nothing to add up first
        parallel_chunks(outer * inner, elementwise_grain, [=](std::int64_t begin, std::int64_t end) {
            for (std::int64_t row = begin; row < end; ++row) {
                const std::int64_t o = row / inner, i = row % inner;
                T& target = y[(o * n + index[o * outer_step + i * inner_step]) * inner + i];
                target = convert<T>((replace ? 0.0 : convert<double>(target)) + convert<double>(x[row]));
            }
        });
        return;
    }
    // The sums of a block of lines should stay in cache.
    const std::int64_t width = std::clamp<std::int64_t>(32768 / std::max<std::int64_t>(1, n), 8, 1024);
    detail::for_lines(outer, n + m, inner, width, [=](std::int64_t o, std::int64_t first, std::int64_t count) {
        T* target = y + o * n * inner + first;
        const auto each_row = [&](const auto& body) { // of x, with the places of its elements
            constexpr std::int64_t ahead = 8;
            for (std::int64_t j = 0; j < m; ++j) {
                const I* at = index + o * outer_step + j * step + first * inner_step;
                const T* row = x + (o * m + j) * inner + first;
                if (j + ahead < m) { // short runs far apart, which the processor does not foresee
                    prefetch_rows<3>(row + ahead * inner, 1, count, inner);
                    prefetch_rows<3>(at + ahead * step, 1, inner_step == 0 ? 1 : count, step);
                }
                body(row, at);
            }
        };
        if (replace) {
            each_row([&](const T* row, const I* at) {
                for (std::int64_t i = 0; i < count; ++i) {
                    target[at[i * inner_step] * inner + i] = row[i];
                }
            });
            return;
        }
        std::vector<double> sums(static_cast<std::size_t>(n * count));
        for (std::int64_t j = 0; j < n; ++j) {
            std::transform(target + j * inner, target + j * inner + count, sums.data() + j * count, convert<double, T>);
        }
        each_row([&](const T* row, const I* at) {
            if (inner_step == 0) { // the whole row goes to one place
                detail::add_to_sums(row, count, sums.data() + *at * count);
                return;
            }
            for (std::int64_t i = 0; i < count; ++i) {
                sums[static_cast<std::size_t>(at[i * inner_step] * count + i)] += convert<double>(row[i]);
            }
        });
        for (std::int64_t j = 0; j < n; ++j) {
            std::transform(sums.data() + j * count, sums.data() + (j + 1) * count, target + j * inner,
                           convert<T, double>);
        }
    });
}

} // namespace lowrank
