// Softmax and its logarithm over rows on the host.
#pragma once

#include <cmath>
#include <cstdint>

#include "lowrank/backend/cpu/rows.hpp"
#include "lowrank/core/device.hpp"

namespace lowrank {

namespace detail {

/// y = (x − maximum) − logarithm of the sum.
template <class T, class S>
struct LogSoftmaxStep {
    const T* x;
    S maximum, logarithm;
    T* y;
    template <class V, bool Whole>
    LOWRANK_INLINE void operator()(const RowStep<V, Whole>& step) const {
        step.store(step.load(x) - V(maximum) - V(logarithm), y);
    }
};

struct SoftmaxRow {
    template <int Width, class T>
    [[gnu::always_inline]] static inline void run(std::int64_t n, const T* x, T* y, bool logarithm) {
        using S = compute_t<T>;
        using V = RowVector<S, Width>;
        const auto normalizer = RowNormalizer<S>::template of<Width>(n, x);
        if (logarithm) {
            row_map<V>(n, LogSoftmaxStep<T, S>{x, normalizer.maximum, static_cast<S>(std::log(normalizer.sum)), y});
        } else {
            row_map<V>(n, RowScaledExponential<T, S>{{x, normalizer.maximum}, static_cast<S>(1.0 / normalizer.sum), y});
        }
    }
};

/// dy, or dy · y.
template <class T>
struct SoftmaxGradientTerm {
    const T* y; // null for the logarithm
    const T* dy;
    template <class V, bool Whole>
    LOWRANK_INLINE V operator()(const RowStep<V, Whole>& step) const {
        return y == nullptr ? step.load(dy) : step.load(dy) * step.load(y);
    }
};

/// dx = y·(dy − sum), or dy − exp(y)·sum.
template <class T, class S>
struct SoftmaxGradientStep {
    const T *y, *dy;
    S sum;
    bool logarithm;
    T* dx;
    template <class V, bool Whole>
    LOWRANK_INLINE void operator()(const RowStep<V, Whole>& step) const {
        const V y_here = step.load(y), dy_here = step.load(dy);
        step.store(logarithm ? dy_here - simd::exp(y_here) * V(sum) : y_here * (dy_here - V(sum)), dx);
    }
};

struct SoftmaxGradientRow {
    template <int Width, class T>
    [[gnu::always_inline]] static inline void run(std::int64_t n, const T* y, const T* dy, T* dx, bool logarithm) {
        using S = compute_t<T>;
        using V = RowVector<S, Width>;
        const double sum = row_sum<V>(n, SoftmaxGradientTerm<T>{logarithm ? nullptr : y, dy});
        row_map<V>(n, SoftmaxGradientStep<T, S>{y, dy, static_cast<S>(sum), logarithm, dx});
    }
};

} // namespace detail

/// y = softmax(x), or its logarithm, of each row of n elements.
template <class T>
void softmax_rows(Cpu, std::int64_t rows, std::int64_t n, const T* x, T* y, bool logarithm) {
    for_rows(rows, n,
             [=](std::int64_t r) { simd::run_for_isa<detail::SoftmaxRow>(n, x + r * n, y + r * n, logarithm); });
}

/// The gradient of softmax_rows, from its result.
template <class T>
void softmax_gradient_rows(Cpu, std::int64_t rows, std::int64_t n, const T* y, const T* dy, T* dx, bool logarithm) {
    for_rows(rows, n, [=](std::int64_t r) {
        simd::run_for_isa<detail::SoftmaxGradientRow>(n, y + r * n, dy + r * n, dx + r * n, logarithm);
    });
}

} // namespace lowrank
