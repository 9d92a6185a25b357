// Layer norm on the host, forward and backward, row by row on SIMD vectors.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "lowrank/backend/cpu/columns.hpp"
#include "lowrank/core/parallel.hpp"
#include "lowrank/core/scalar.hpp"
#include "lowrank/simd/dispatch.hpp"
#include "lowrank/simd/memory.hpp"

namespace lowrank {
namespace detail {

/// The lanes of C in a register of `Width` floats.
template <class C, int Width>
using LanesOf = simd::Vec<C, Width * 4 / static_cast<int>(sizeof(C))>;

/// The whole vectors of a row, then its last lanes: `n` values from p + j, zero beyond.
template <class V, class T>
LOWRANK_INLINE V load_row(const T* p, std::int64_t j, std::int64_t n) {
    return j + V::size <= n ? simd::load<V>(p + j) : simd::load<V>(p + j, static_cast<std::size_t>(n - j));
}
template <class T, class V>
LOWRANK_INLINE void store_row(V x, T* p, std::int64_t j, std::int64_t n) {
    j + V::size <= n ? simd::store(x, p + j) : simd::store(x, p + j, static_cast<std::size_t>(n - j));
}

/// Rows [begin, end): y = (x - mean)·rstd·weight + bias. The variance is taken around the mean, in a second pass.
struct LayerNormForward {
    template <int Width, class T, class C>
    LOWRANK_INLINE static void run(std::int64_t begin, std::int64_t end, std::int64_t n, const T* x, const C* weight,
                                   const C* bias, C epsilon, T* y, C* mean, C* rstd) {
        using V = LanesOf<C, Width>;
        for (std::int64_t i = begin; i < end; ++i) {
            const T* row = x + i * n;
            V sum(C(0));
            for (std::int64_t j = 0; j < n; j += V::size) {
                sum += load_row<V>(row, j, n);
            }
            const C m = reduce_add(sum) / static_cast<C>(n);
            V squares(C(0));
            for (std::int64_t j = 0; j + V::size <= n; j += V::size) {
                const V d = simd::load<V>(row + j) - V(m);
                squares = fma(d, d, squares);
            }
            C rest = 0;
            for (std::int64_t j = n / V::size * V::size; j < n; ++j) {
                const C d = static_cast<C>(row[j]) - m;
                rest += d * d;
            }
            const C r = C(1) / std::sqrt((reduce_add(squares) + rest) / static_cast<C>(n) + epsilon);
            for (std::int64_t j = 0; j < n; j += V::size) {
                const V normal = (load_row<V>(row, j, n) - V(m)) * V(r);
                store_row(fma(normal, load_row<V>(weight, j, n), load_row<V>(bias, j, n)), y + i * n, j, n);
            }
            mean[i] = m;
            rstd[i] = r;
        }
    }
};

/// Rows [begin, end): dx = rstd·(g - mean(g) - normal·mean(g·normal)) with g = dy·weight.
struct LayerNormBackward {
    template <int Width, class T, class C>
    LOWRANK_INLINE static void run(std::int64_t begin, std::int64_t end, std::int64_t n, const T* x, const C* weight,
                                   const C* mean, const C* rstd, const T* dy, T* dx) {
        using V = LanesOf<C, Width>;
        for (std::int64_t i = begin; i < end; ++i) {
            const T* row = x + i * n;
            const T* up = dy + i * n;
            V sum(C(0)), product(C(0)); // lanes beyond the row add 0: there dy is 0
            for (std::int64_t j = 0; j < n; j += V::size) {
                const V g = load_row<V>(up, j, n) * load_row<V>(weight, j, n);
                sum += g;
                product = fma(g, (load_row<V>(row, j, n) - V(mean[i])) * V(rstd[i]), product);
            }
            const V a(reduce_add(sum) / static_cast<C>(n)), b(reduce_add(product) / static_cast<C>(n));
            for (std::int64_t j = 0; j < n; j += V::size) {
                const V g = load_row<V>(up, j, n) * load_row<V>(weight, j, n);
                const V normal = (load_row<V>(row, j, n) - V(mean[i])) * V(rstd[i]);
                store_row((g - a - normal * b) * V(rstd[i]), dx + i * n, j, n);
            }
        }
    }
};

inline std::int64_t rows_of_a_task(std::int64_t n) {
    return std::max<std::int64_t>(1, elementwise_grain / std::max<std::int64_t>(n, 1));
}

} // namespace detail

/// y [rows, n] = (x - mean)·rstd·weight + bias; mean and rstd [rows] are kept for backward.
template <class T>
void layer_norm_forward(Cpu, std::int64_t rows, std::int64_t n, const T* x, const compute_t<T>* weight,
                        const compute_t<T>* bias, double epsilon, T* y, compute_t<T>* mean, compute_t<T>* rstd) {
    const auto eps = static_cast<compute_t<T>>(epsilon);
    parallel_chunks(rows, detail::rows_of_a_task(n), [=](std::int64_t begin, std::int64_t end) {
        simd::run_for_isa<detail::LayerNormForward>(begin, end, n, x, weight, bias, eps, y, mean, rstd);
    });
}

/// The gradient with respect to x.
template <class T>
void layer_norm_backward(Cpu, std::int64_t rows, std::int64_t n, const T* x, const compute_t<T>* weight,
                         const compute_t<T>* mean, const compute_t<T>* rstd, const T* dy, T* dx) {
    parallel_chunks(rows, detail::rows_of_a_task(n), [=](std::int64_t begin, std::int64_t end) {
        simd::run_for_isa<detail::LayerNormBackward>(begin, end, n, x, weight, mean, rstd, dy, dx);
    });
}

/// The gradient with respect to the weight: the sum over rows of dy·(x - mean)·rstd.
template <class T>
void layer_norm_weight_backward(Cpu, std::int64_t rows, std::int64_t n, const T* x, const compute_t<T>* mean,
                                const compute_t<T>* rstd, const T* dy, compute_t<T>* dweight) {
    detail::sum_columns(rows, n, dweight, false, [=](std::int64_t at) {
        const std::int64_t i = at / n;
        return convert<double>(dy[at]) * (convert<double>(x[at]) - double(mean[i])) * double(rstd[i]);
    });
}

} // namespace lowrank
