// The logarithm of a sum of exponentials over rows on the host.
#pragma once

#include <cmath>
#include <cstdint>

#include "lowrank/backend/cpu/arithmetic.hpp"
#include "lowrank/backend/cpu/rows.hpp"
#include "lowrank/core/device.hpp"

namespace lowrank {
namespace detail {

struct LogSumExpRow {
    template <int Width, class T>
    [[gnu::always_inline]] static inline double run(std::int64_t n, const T* x) {
        using S = compute_t<T>;
        using V = RowVector<S, Width>;
        const S maximum = row_max<V>(n, x);
        const S shift = std::isfinite(maximum) ? maximum : S(0);
        return static_cast<double>(shift) + std::log(row_sum<V>(n, RowExponential<T, S>{x, shift}));
    }
};

struct LogSumExpGradientRow {
    template <int Width, class T, class S>
    [[gnu::always_inline]] static inline void run(std::int64_t n, const T* x, S shift, S dy, T* dx) {
        row_map<RowVector<S, Width>>(n, RowScaledExponential<T, S>{{x, shift}, dy, dx});
    }
};

} // namespace detail

/// y[i] = log Σ exp(x) of each row of n elements; -infinity of none.
template <class T>
void log_sum_exp_rows(Cpu, std::int64_t rows, std::int64_t n, const T* x, double* y) {
    for_rows(rows, n, [=](std::int64_t i) { y[i] = simd::run_for_isa<detail::LogSumExpRow>(n, x + i * n); });
}

/// The gradient dy[i] · exp(x - y[i]); 0 in a row of -infinity.
template <class T>
void log_sum_exp_backward(Cpu, std::int64_t rows, std::int64_t n, const T* x, const double* y, const T* dy, T* dx) {
    using S = compute_t<T>;
    for_rows(rows, n, [=](std::int64_t i) {
        const bool finite = std::isfinite(y[i]);
        const S shift = y[i] < 0 && !finite ? S(0) : static_cast<S>(y[i]);
        // What the shift lost by rounding is made up for in the factor.
        const double factor = finite ? std::exp(static_cast<double>(shift) - y[i]) : 1.0;
        simd::run_for_isa<detail::LogSumExpGradientRow>(n, x + i * n, shift,
                                                        static_cast<S>(convert<double>(dy[i]) * factor), dx + i * n);
    });
}

} // namespace lowrank
