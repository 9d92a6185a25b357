// The inner kernels of attention on the host: products of small tiles, the online softmax, and its gradient.
// A tile is a matrix of keys × queries: the lanes of a vector are queries, so that the softmax has no horizontal step.
#pragma once

#include <limits>

#include "lowrank/simd/dispatch.hpp"
#include "lowrank/simd/functions.hpp"
#include "lowrank/simd/memory.hpp"
#include "lowrank/simd/vec.hpp"

namespace lowrank::detail {

/// Keys and queries of a tile, and the distance of its rows in memory.
inline constexpr int attention_tile = 64;

/// Copies `count` vectors of `dim` values, the i-th at from + offsets[i], times `scale`, to rows of `to_row` values.
struct AttentionGather {
    template <int Width, class T, class S>
    [[gnu::always_inline]] static inline void run(int count, int dim, const T* from, const std::int64_t* offsets,
                                                  S scale, S* to, int to_row) {
        using V = simd::Vec<S, Width * 4 / sizeof(S)>;
        for (int i = 0; i < count; ++i) {
            const T* source = from + offsets[i];
            S* target = to + i * to_row;
            int d = 0;
            for (; d + V::size <= dim; d += V::size) {
                simd::store(simd::load<V>(source + d) * V(scale), target + d);
            }
            for (; d < dim; ++d) {
                target[d] = static_cast<S>(source[d]) * scale;
            }
        }
    }
};

/// c[m, n] (+)= a[m, k]·b[k, n] for operands in the first-level cache. Element (i, s) of a lies at i·a_row + s·a_step;
/// n is rounded up to whole vectors, which b and c have room for.
struct AttentionProduct {
    template <int Width, class S>
    [[gnu::always_inline]] static inline void run(int m, int n, int k, const S* a, int a_row, int a_step, const S* b,
                                                  int b_row, S* c, int c_row, bool accumulate) {
        constexpr int lanes = Width * 4 / static_cast<int>(sizeof(S));
        constexpr int wide = Width == 16 ? 4 : 2;
        int j = 0;
        for (; j + (wide - 1) * lanes < n; j += wide * lanes) {
            columns<lanes, wide>(m, k, a, a_row, a_step, b + j, b_row, c + j, c_row, accumulate);
        }
        for (; j < n; j += lanes) {
            columns<lanes, 1>(m, k, a, a_row, a_step, b + j, b_row, c + j, c_row, accumulate);
        }
    }

  private:
    template <int Lanes, int Vectors, class S>
    [[gnu::always_inline]] static inline void columns(int m, int k, const S* a, int a_row, int a_step, const S* b,
                                                      int b_row, S* c, int c_row, bool accumulate) {
        constexpr int rows = 4;
        int i = 0;
        for (; i + rows <= m; i += rows) {
            registers<Lanes, Vectors, rows>(k, a + i * a_row, a_row, a_step, b, b_row, c + i * c_row, c_row,
                                            accumulate);
        }
        for (; i < m; ++i) {
            registers<Lanes, Vectors, 1>(k, a + i * a_row, a_row, a_step, b, b_row, c + i * c_row, c_row, accumulate);
        }
    }

    template <int Lanes, int Vectors, int Rows, class S>
    [[gnu::always_inline]] static inline void registers(int k, const S* a, int a_row, int a_step, const S* b, int b_row,
                                                        S* c, int c_row, bool accumulate) {
        using V = simd::Vec<S, Lanes>;
        V sum[Rows][Vectors];
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) {
                sum[r][v] = accumulate ? simd::load<V>(c + r * c_row + v * Lanes) : V(S(0));
            }
        }
        for (int s = 0; s < k; ++s) {
            V column[Vectors];
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) {
                column[v] = simd::load<V>(b + s * b_row + v * Lanes);
            }
#pragma GCC unroll 8
            for (int r = 0; r < Rows; ++r) {
                const V row(a[r * a_row + s * a_step]);
#pragma GCC unroll 4
                for (int v = 0; v < Vectors; ++v) {
                    sum[r][v] = fma(row, column[v], sum[r][v]);
                }
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) {
                simd::store(sum[r][v], c + r * c_row + v * Lanes);
            }
        }
    }
};

/// AttentionProduct for the instruction set in use: one instantiation for every type S.
template <class S>
void attention_product(int m, int n, int k, const S* a, int a_row, int a_step, const S* b, int b_row, S* c, int c_row,
                       bool accumulate) {
    simd::run_for_isa<AttentionProduct>(m, n, k, a, a_row, a_step, b, b_row, c, c_row, accumulate);
}

/// Which keys of a tile, counted from its first, each query sees: low … high. Null pointers: all of them.
template <class S>
struct AttentionWindow {
    const S* low;
    const S* high;
};

/// One step of the online softmax (Milakov and Gimelshein, 2018) over a tile of scores [keys, queries]: raises the
/// queries' running maxima, replaces the scores by exp(score − maximum) times the dropout factors (when there are any),
/// adds them without the factors to the running sums, and rescales the output so far, [head_dim, queries].
struct AttentionSoftmax {
    template <int Width, class S>
    [[gnu::always_inline]] static inline void run(int keys, int queries, S* scores, const AttentionWindow<S>& window,
                                                  const S* factors, S* maxima, S* sums, S* output, int head_dim) {
        using V = simd::Vec<S, Width * 4 / sizeof(S)>;
        for (int q = 0; q < queries; q += V::size) {
            const V before = simd::load<V>(maxima + q);
            V maximum = before;
            if (window.low != nullptr) {
                const V low = simd::load<V>(window.low + q), high = simd::load<V>(window.high + q);
                for (int key = 0; key < keys; ++key) {
                    S* score = scores + key * attention_tile + q;
                    const V index(static_cast<S>(key));
                    // Not −∞: a query that sees nothing so far must not give ∞ − ∞. What it sums up is multiplied by
                    // zero as soon as its maximum becomes that of a real score.
                    const V seen = select((low <= index) & (index <= high), simd::load<V>(score), V(unseen<S>));
                    simd::store(seen, score);
                    maximum = max(maximum, seen);
                }
            } else {
                for (int key = 0; key < keys; ++key) {
                    maximum = max(maximum, simd::load<V>(scores + key * attention_tile + q));
                }
            }
            const V rescale = simd::exp(before - maximum);
            V sum = simd::load<V>(sums + q) * rescale;
            for (int key = 0; key < keys; ++key) {
                S* score = scores + key * attention_tile + q;
                const V p = simd::exp(simd::load<V>(score) - maximum);
                sum += p;
                simd::store(factors ? p * simd::load<V>(factors + key * attention_tile + q) : p, score);
            }
            simd::store(maximum, maxima + q);
            simd::store(sum, sums + q);
            for (int d = 0; d < head_dim; ++d) {
                S* out = output + d * attention_tile + q;
                simd::store(simd::load<V>(out) * rescale, out);
            }
        }
    }

    /// The score of a key that is not seen, and the maximum before the first key.
    template <class S>
    static constexpr S unseen = std::numeric_limits<S>::lowest();
};

/// The gradient of the softmax of a tile: with p = exp(score − logsumexp) and dropout factors f (1 when null), replaces
/// `scores` by p·f and `gradients`, the gradient of p·f, by that of the scores: p·(f·gradient − delta).
struct AttentionSoftmaxGradient {
    template <int Width, class S>
    [[gnu::always_inline]] static inline void run(int keys, int queries, S* scores, S* gradients,
                                                  const AttentionWindow<S>& window, const S* factors,
                                                  const S* logsumexp, const S* delta) {
        using V = simd::Vec<S, Width * 4 / sizeof(S)>;
        for (int q = 0; q < queries; q += V::size) {
            const V shift = simd::load<V>(logsumexp + q), mean = simd::load<V>(delta + q);
            for (int key = 0; key < keys; ++key) {
                const int at = key * attention_tile + q;
                V p = simd::exp(simd::load<V>(scores + at) - shift);
                if (window.low != nullptr) {
                    const V index(static_cast<S>(key));
                    const auto seen =
                        (simd::load<V>(window.low + q) <= index) & (index <= simd::load<V>(window.high + q));
                    p = select(seen, p, V(S(0)));
                }
                const V gradient = simd::load<V>(gradients + at);
                if (factors != nullptr) {
                    const V factor = simd::load<V>(factors + at);
                    simd::store(p * factor, scores + at);
                    simd::store(p * (factor * gradient - mean), gradients + at);
                } else {
                    simd::store(p, scores + at);
                    simd::store(p * (gradient - mean), gradients + at);
                }
            }
        }
    }
};

} // namespace lowrank::detail
