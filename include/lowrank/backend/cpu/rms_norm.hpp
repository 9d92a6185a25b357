// RMS norm on the host, forward and backward, row by row.
#pragma once

#include <cmath>
#include <cstdint>

#include "lowrank/backend/cpu/columns.hpp"
#include "lowrank/backend/cpu/rows.hpp"
#include "lowrank/core/device.hpp"

namespace lowrank {
namespace detail {

/// y = x · rstd · weight.
template <class T, class S>
struct RmsNormStep {
    const T* x;
    S rstd;
    const S* weight;
    T* y;
    template <class V, bool Whole>
    LOWRANK_INLINE void operator()(const RowStep<V, Whole>& step) const {
        step.store(step.load(x) * V(rstd) * step.load(weight), y);
    }
};

struct RmsNormRow {
    template <int Width, class T, class S>
    [[gnu::always_inline]] static inline void run(std::int64_t n, const T* x, const S* weight, double epsilon, T* y,
                                                  S* rstd) {
        using V = RowVector<S, Width>;
        const double mean = row_sum<V>(n, RowSquare<RowValue<T>>{{x}}) / static_cast<double>(n);
        *rstd = static_cast<S>(1.0 / std::sqrt(mean + epsilon));
        row_map<V>(n, RmsNormStep<T, S>{x, *rstd, weight, y});
    }
};

/// dx = rstd · (dy·weight - x · slope).
template <class T, class S>
struct RmsNormGradientStep {
    RowProduct<RowValue<T>, RowValue<S>> upstream;
    const T* x;
    S rstd, slope;
    T* dx;
    template <class V, bool Whole>
    LOWRANK_INLINE void operator()(const RowStep<V, Whole>& step) const {
        step.store((upstream(step) - step.load(x) * V(slope)) * V(rstd), dx);
    }
};

struct RmsNormGradientRow {
    template <int Width, class T, class S>
    [[gnu::always_inline]] static inline void run(std::int64_t n, const T* x, const S* weight, S rstd, const T* dy,
                                                  T* dx) {
        using V = RowVector<S, Width>;
        using Upstream = RowProduct<RowValue<T>, RowValue<S>>;
        const Upstream upstream{{dy}, {weight}};
        const double sum = row_sum<V>(n, RowProduct<Upstream, RowValue<T>>{upstream, {x}});
        const double r = static_cast<double>(rstd), slope = sum / static_cast<double>(n) * r * r;
        row_map<V>(n, RmsNormGradientStep<T, S>{upstream, x, rstd, static_cast<S>(slope), dx});
    }
};

/// The terms of the gradient with respect to the weight: dy · x · rstd.
template <class T, class S>
struct RmsNormWeightRows {
    const T *x, *dy;
    std::int64_t n;
    const S* rstd;

    LOWRANK_INLINE auto operator()(std::int64_t i) const {
        using Product = RowProduct<RowValue<T>, RowValue<T>>;
        return RowProduct<Product, RowConstant<double>>{{{dy + i * n}, {x + i * n}}, {static_cast<double>(rstd[i])}};
    }
};

} // namespace detail

/// y [rows, n] = x · rstd · weight, where rstd = 1 / √(mean of x² + epsilon); rstd [rows] is kept for backward.
template <class T>
void rms_norm_forward(Cpu, std::int64_t rows, std::int64_t n, const T* x, const compute_t<T>* weight, double epsilon,
                      T* y, compute_t<T>* rstd) {
    for_rows(rows, n, [=](std::int64_t i) {
        simd::run_for_isa<detail::RmsNormRow>(n, x + i * n, weight, epsilon, y + i * n, rstd + i);
    });
}

/// The gradient with respect to x.
template <class T>
void rms_norm_backward(Cpu, std::int64_t rows, std::int64_t n, const T* x, const compute_t<T>* weight,
                       const compute_t<T>* rstd, const T* dy, T* dx) {
    for_rows(rows, n, [=](std::int64_t i) {
        simd::run_for_isa<detail::RmsNormGradientRow>(n, x + i * n, weight, rstd[i], dy + i * n, dx + i * n);
    });
}

/// The gradient with respect to the weight: the sum over rows of dy · x · rstd.
template <class T>
void rms_norm_weight_backward(Cpu, std::int64_t rows, std::int64_t n, const T* x, const compute_t<T>* rstd, const T* dy,
                              compute_t<T>* dweight) {
    detail::sum_columns(rows, n, dweight, detail::RmsNormWeightRows<T, compute_t<T>>{x, dy, n, rstd});
}

} // namespace lowrank
