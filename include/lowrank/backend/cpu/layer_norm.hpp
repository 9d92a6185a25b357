// Layer norm on the host, forward and backward, row by row.
#pragma once

#include <cmath>
#include <cstdint>

#include "lowrank/backend/cpu/columns.hpp"
#include "lowrank/backend/cpu/rows.hpp"
#include "lowrank/core/device.hpp"

namespace lowrank {
namespace detail {

/// x - mean over a row. The mean is kept in double and subtracted in two parts: rows of real models have means of a
/// thousand deviations, and a mean rounded to float would cost three digits.
template <class T, class S>
struct RowCentered {
    const T* x;
    S mean, rest;

    RowCentered(const T* row, double exact)
        : x(row),
          mean(static_cast<S>(exact)),
          rest(static_cast<S>(exact - static_cast<double>(mean))) {}

    template <class V, bool Whole>
    LOWRANK_INLINE V operator()(const RowStep<V, Whole>& step) const {
        return step.load(x) - V(mean) - V(rest);
    }
};

/// y = centered · rstd · weight + bias.
template <class T, class S>
struct LayerNormStep {
    RowCentered<T, S> centered;
    S rstd;
    const S *weight, *bias;
    T* y;
    template <class V, bool Whole>
    LOWRANK_INLINE void operator()(const RowStep<V, Whole>& step) const {
        step.store(fma(centered(step) * V(rstd), step.load(weight), step.load(bias)), y);
    }
};

struct LayerNormRow {
    template <int Width, class T, class S>
    [[gnu::always_inline]] static inline void run(std::int64_t n, const T* x, const S* weight, const S* bias,
                                                  double epsilon, T* y, double* mean, S* rstd) {
        using V = RowVector<S, Width>;
        const double rough = row_sum<V>(n, RowValue<T>{x}) / static_cast<double>(n);
        *mean = rough + row_sum<V>(n, RowCentered<T, S>(x, rough)) / static_cast<double>(n);
        const RowCentered<T, S> centered(x, *mean);
        const double variance = row_sum<V>(n, RowSquare<RowCentered<T, S>>{centered}) / static_cast<double>(n);
        *rstd = static_cast<S>(1.0 / std::sqrt(variance + epsilon));
        row_map<V>(n, LayerNormStep<T, S>{centered, *rstd, weight, bias, y});
    }
};

/// dx = rstd · (dy·weight - mean - centered · slope).
template <class T, class S>
struct LayerNormGradientStep {
    RowProduct<RowValue<T>, RowValue<S>> upstream;
    RowCentered<T, S> centered;
    S rstd, mean, slope;
    T* dx;
    template <class V, bool Whole>
    LOWRANK_INLINE void operator()(const RowStep<V, Whole>& step) const {
        step.store((upstream(step) - V(mean) - centered(step) * V(slope)) * V(rstd), dx);
    }
};

struct LayerNormGradientRow {
    template <int Width, class T, class S>
    [[gnu::always_inline]] static inline void run(std::int64_t n, const T* x, const S* weight, double mean, S rstd,
                                                  const T* dy, T* dx) {
        using V = RowVector<S, Width>;
        using Upstream = RowProduct<RowValue<T>, RowValue<S>>;
        const Upstream upstream{{dy}, {weight}};
        const RowCentered<T, S> centered(x, mean);
        const double count = static_cast<double>(n), r = static_cast<double>(rstd);
        const double sum = row_sum<V>(n, upstream) / count;
        const double product = row_sum<V>(n, RowProduct<Upstream, RowCentered<T, S>>{upstream, centered}) / count;
        row_map<V>(n, LayerNormGradientStep<T, S>{upstream, centered, rstd, static_cast<S>(sum),
                                                  static_cast<S>(product * r * r), dx});
    }
};

/// The terms of the gradient with respect to the weight: dy · (x - mean) · rstd.
template <class T, class S>
struct LayerNormWeightRows {
    const T *x, *dy;
    std::int64_t n;
    const double* mean;
    const S* rstd;

    LOWRANK_INLINE auto operator()(std::int64_t i) const {
        using Product = RowProduct<RowValue<T>, RowCentered<T, double>>;
        return RowProduct<Product, RowConstant<double>>{{{dy + i * n}, RowCentered<T, double>(x + i * n, mean[i])},
                                                        {static_cast<double>(rstd[i])}};
    }
};

} // namespace detail

/// y [rows, n] = (x - mean) · rstd · weight + bias, where rstd = 1 / √(variance + epsilon) and the variance is taken
/// around the mean, in a second pass; mean and rstd [rows] are kept for backward.
template <class T>
void layer_norm_forward(Cpu, std::int64_t rows, std::int64_t n, const T* x, const compute_t<T>* weight,
                        const compute_t<T>* bias, double epsilon, T* y, double* mean, compute_t<T>* rstd) {
    for_rows(rows, n, [=](std::int64_t i) {
        simd::run_for_isa<detail::LayerNormRow>(n, x + i * n, weight, bias, epsilon, y + i * n, mean + i, rstd + i);
    });
}

/// The gradient with respect to x.
template <class T>
void layer_norm_backward(Cpu, std::int64_t rows, std::int64_t n, const T* x, const compute_t<T>* weight,
                         const double* mean, const compute_t<T>* rstd, const T* dy, T* dx) {
    for_rows(rows, n, [=](std::int64_t i) {
        simd::run_for_isa<detail::LayerNormGradientRow>(n, x + i * n, weight, mean[i], rstd[i], dy + i * n, dx + i * n);
    });
}

/// The gradient with respect to the weight: the sum over rows of dy · (x - mean) · rstd.
template <class T>
void layer_norm_weight_backward(Cpu, std::int64_t rows, std::int64_t n, const T* x, const double* mean,
                                const compute_t<T>* rstd, const T* dy, compute_t<T>* dweight) {
    detail::sum_columns(rows, n, dweight, detail::LayerNormWeightRows<T, compute_t<T>>{x, dy, n, mean, rstd});
}

} // namespace lowrank
