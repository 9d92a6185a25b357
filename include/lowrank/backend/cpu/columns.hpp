// Sums and products by column of a row-major matrix, and gathering of rows, on the host.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "lowrank/backend/cpu/arithmetic.hpp"
#include "lowrank/tensor/copy_block.hpp"

namespace lowrank {
namespace detail {

/// out[j] (+)= Σ_i term(i, i · n + j), the row and the place in memory, summed in double in the order of the rows.
template <class C, class Term>
void sum_columns(std::int64_t rows, std::int64_t n, C* out, bool accumulate, const Term& term) {
    constexpr std::int64_t width = 128; // columns of a task: their sums stay in registers and cache
    parallel_chunks(n, width, [&](std::int64_t begin, std::int64_t end) {
        double sums[width] = {};
        for (std::int64_t i = 0; i < rows; ++i) {
            const std::int64_t at = i * n + begin;
            if (end - begin == width) { // a known number: then the compiler uses vectors
                for (std::int64_t j = 0; j < width; ++j) {
                    sums[j] += term(i, at + j);
                }
            } else {
                for (std::int64_t j = 0; j < end - begin; ++j) {
                    sums[j] += term(i, at + j);
                }
            }
        }
        for (std::int64_t j = begin; j < end; ++j) {
            out[j] = static_cast<C>(sums[j - begin] + (accumulate ? static_cast<double>(out[j]) : 0.0));
        }
    });
}

} // namespace detail

/// out[j] = Σ_i x[i, j] for x [rows, n].
template <class T>
void sum_rows(Cpu, std::int64_t rows, std::int64_t n, const T* x, compute_t<T>* out) {
    detail::sum_columns(rows, n, out, false, [=](std::int64_t, std::int64_t at) { return convert<double>(x[at]); });
}

/// out[j] = Σ_i x[i, j]·y[i, j] for x, y [rows, n].
template <class T>
void dot_rows(Cpu, std::int64_t rows, std::int64_t n, const T* x, const T* y, compute_t<T>* out) {
    detail::sum_columns(rows, n, out, false,
                        [=](std::int64_t, std::int64_t at) { return convert<double>(x[at]) * convert<double>(y[at]); });
}

/// y[i, j] = x[i, j]·scale[j] for x [rows, n].
template <class T>
void scale_columns(Cpu, std::int64_t rows, std::int64_t n, const T* x, const compute_t<T>* scale, T* y) {
    using C = compute_t<T>;
    const std::int64_t grain = std::max<std::int64_t>(1, elementwise_grain / std::max<std::int64_t>(n, 1));
    parallel_chunks(rows, grain, [=](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            for (std::int64_t j = 0; j < n; ++j) {
                y[i * n + j] = static_cast<T>(static_cast<C>(x[i * n + j]) * scale[j]);
            }
        }
    });
}

/// y[i] = x[i]·factor[0]: the factor is read where the kernel runs.
template <class T, class C>
void scale_by(Cpu, std::int64_t n, const T* x, const C* factor, T* y) {
    parallel_chunks(n, elementwise_grain, [=](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            y[i] = convert<T>(convert<C>(x[i]) * *factor);
        }
    });
}

/// to[i, :] = from[index[i], :], converted, for rows of n elements.
template <class From, class To>
void gather_rows(Cpu, std::int64_t count, std::int64_t n, const std::int32_t* index, const From* from, To* to) {
    for (std::int64_t i = 0; i < count; ++i) {
        copy_block(1, n, from + index[i] * n, n, to + i * n, n, 1);
    }
}

/// to[index[i], :] = from[i, :], converted, for rows of n elements; the indices are distinct.
template <class From, class To>
void scatter_rows(Cpu, std::int64_t count, std::int64_t n, const std::int32_t* index, const From* from, To* to) {
    for (std::int64_t i = 0; i < count; ++i) {
        copy_block(1, n, from + i * n, n, to + index[i] * n, n, 1);
    }
}

} // namespace lowrank
