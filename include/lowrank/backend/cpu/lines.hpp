// Kernels along one dimension of memory [outer, n, inner] on the host: running sums, gathering, scattering.
#pragma once

#include <algorithm>
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

} // namespace detail

/// y[o, j, i] = the sum, in double, of x[o, 0 … j, i], or of x[o, j … n-1, i] when backwards.
template <class T>
void cumulative_sum(Cpu, std::int64_t outer, std::int64_t n, std::int64_t inner, const T* x, T* y, bool backwards) {
    detail::for_lines(outer, n, inner, detail::most_lines, [=](std::int64_t o, std::int64_t first, std::int64_t count) {
        double sums[detail::most_lines] = {};
        for (std::int64_t step = 0; step < n; ++step) {
            const std::int64_t at = (o * n + (backwards ? n - 1 - step : step)) * inner + first;
            for (std::int64_t i = 0; i < count; ++i) {
                sums[i] += convert<double>(x[at + i]);
                y[at + i] = convert<T>(sums[i]);
            }
        }
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
    const std::int64_t width = std::clamp<std::int64_t>(32768 / std::max<std::int64_t>(1, n), 8, detail::most_lines);
    detail::for_lines(outer, n + m, inner, width, [=](std::int64_t o, std::int64_t first, std::int64_t count) {
        T* target = y + o * n * inner + first;
        std::vector<double> sums(static_cast<std::size_t>(n * count));
        for (std::int64_t j = 0; j < n; ++j) {
            std::transform(target + j * inner, target + j * inner + count, sums.data() + j * count, convert<double, T>);
        }
        for (std::int64_t j = 0; j < m; ++j) {
            const I* at = index + o * outer_step + j * step + first * inner_step;
            const T* row = x + (o * m + j) * inner + first;
            if (inner_step == 0 && !replace) { // the whole row goes to one place: each a sum of one more term
                constexpr std::int64_t terms = 1, step_of_terms = 0, step_of_sums = 1;
                simd::run_for_isa<detail::SumRun>(row, terms, step_of_terms, count, step_of_sums,
                                                  sums.data() + *at * count);
                continue;
            }
            for (std::int64_t i = 0; i < count; ++i) {
                double& sum = sums[static_cast<std::size_t>(at[i * inner_step] * count + i)];
                sum = (replace ? 0.0 : sum) + convert<double>(row[i]);
            }
        }
        for (std::int64_t j = 0; j < n; ++j) {
            std::transform(sums.data() + j * count, sums.data() + (j + 1) * count, target + j * inner,
                           convert<T, double>);
        }
    });
}

} // namespace lowrank
