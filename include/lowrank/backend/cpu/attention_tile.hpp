// The inner kernels of attention on the host: products of small tiles, the online softmax, and its gradient.
// A tile is a matrix of keys × queries: the lanes of a vector are queries, so that the softmax has no horizontal step.
#pragma once

#include <limits>

#include "lowrank/backend/cpu/matmul_tile.hpp"
#include "lowrank/simd/dispatch.hpp"
#include "lowrank/simd/functions.hpp"
#include "lowrank/simd/memory.hpp"
#include "lowrank/simd/vec.hpp"
#include "lowrank/tensor/copy_block.hpp"

namespace lowrank::detail {

/// Keys and queries of a tile, and the distance of its rows in memory.
inline constexpr int attention_tile = 64;

/// Copies `count` vectors of `dim` values, the i-th at from + offsets[i], times `scale`, to rows of `to_row` values.
struct AttentionGather {
    template <int Width, class T, class S>
    [[gnu::always_inline]] static inline void run(int count, int dim, const T* from, const std::int64_t* offsets,
                                                  S scale, S* to, int to_row) {
        using V = simd::Vec<S, Width * 4 / sizeof(S)>;
        constexpr int ahead = 8; // vectors lie pages apart: the processor does not foresee the next
        for (int i = 0; i < count; ++i) {
            const T* source = from + offsets[i];
            S* target = to + i * to_row;
            prefetch_rows(from + offsets[i + ahead < count ? i + ahead : i], 1, dim, 0);
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
        int i = 0;
        rows<Lanes, Vectors, 6>(i, m, k, a, a_row, a_step, b, b_row, c, c_row, accumulate);
        rows<Lanes, Vectors, 4>(i, m, k, a, a_row, a_step, b, b_row, c, c_row, accumulate);
        rows<Lanes, Vectors, 1>(i, m, k, a, a_row, a_step, b, b_row, c, c_row, accumulate);
    }

    /// Rows from i on, as many as there are whole tiles for.
    template <int Lanes, int Vectors, int Rows, class S>
    [[gnu::always_inline]] static inline void rows(int& i, int m, int k, const S* a, int a_row, int a_step, const S* b,
                                                   int b_row, S* c, int c_row, bool accumulate) {
        for (; i + Rows <= m; i += Rows) {
            multiply_tile<S, Lanes, Rows, Vectors>(a + i * a_row, a_row, a_step, b, b_row, c + i * c_row, c_row, k,
                                                   accumulate);
        }
    }
};

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
        constexpr int lanes = Width * 4 / static_cast<int>(sizeof(S)), wide = 4; // exp is a long chain: four at a time
        int q = 0;
        for (; q + (wide - 1) * lanes < queries; q += wide * lanes) {
            step<lanes, wide>(keys, q, scores, window, factors, maxima, sums, output, head_dim);
        }
        for (; q < queries; q += lanes) {
            step<lanes, 1>(keys, q, scores, window, factors, maxima, sums, output, head_dim);
        }
    }

    /// The score of a key that is not seen, and the maximum before the first key.
    template <class S>
    static constexpr S unseen = std::numeric_limits<S>::lowest();

  private:
    template <int Lanes, int Vectors, class S>
    [[gnu::always_inline]] static inline void step(int keys, int q, S* scores, const AttentionWindow<S>& window,
                                                   const S* factors, S* maxima, S* sums, S* output, int head_dim) {
        using V = simd::Vec<S, Lanes>;
        V before[Vectors], maximum[Vectors], sum[Vectors];
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) {
            before[v] = maximum[v] = simd::load<V>(maxima + q + v * Lanes);
        }
        if (window.low != nullptr) {
            V low[Vectors], high[Vectors];
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) {
                low[v] = simd::load<V>(window.low + q + v * Lanes);
                high[v] = simd::load<V>(window.high + q + v * Lanes);
            }
            for (int key = 0; key < keys; ++key) {
                const V index(static_cast<S>(key));
#pragma GCC unroll 4
                for (int v = 0; v < Vectors; ++v) {
                    S* score = scores + key * attention_tile + q + v * Lanes;
                    // Not −∞: a query that sees nothing so far must not give ∞ − ∞. What it sums up is multiplied by
                    // zero as soon as its maximum becomes that of a real score.
                    const V none(unseen<S>);
                    const V seen = select(low[v] <= index, select(index <= high[v], simd::load<V>(score), none), none);
                    simd::store(seen, score);
                    maximum[v] = max(maximum[v], seen);
                }
            }
        } else {
            for (int key = 0; key < keys; ++key) {
#pragma GCC unroll 4
                for (int v = 0; v < Vectors; ++v) {
                    maximum[v] = max(maximum[v], simd::load<V>(scores + key * attention_tile + q + v * Lanes));
                }
            }
        }
        V rescale[Vectors];
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) {
            rescale[v] = simd::softmax_exp(before[v] - maximum[v]);
            sum[v] = simd::load<V>(sums + q + v * Lanes) * rescale[v];
        }
        for (int key = 0; key < keys; ++key) {
            V p[Vectors];
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) {
                p[v] = simd::load<V>(scores + key * attention_tile + q + v * Lanes) - maximum[v];
            }
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) {
                p[v] = simd::softmax_exp(p[v]);
            }
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) {
                const int at = key * attention_tile + q + v * Lanes;
                sum[v] += p[v];
                simd::store(factors != nullptr ? p[v] * simd::load<V>(factors + at) : p[v], scores + at);
            }
        }
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) {
            simd::store(maximum[v], maxima + q + v * Lanes);
            simd::store(sum[v], sums + q + v * Lanes);
        }
        for (int d = 0; d < head_dim; ++d) {
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) {
                S* out = output + d * attention_tile + q + v * Lanes;
                simd::store(simd::load<V>(out) * rescale[v], out);
            }
        }
    }
};

/// The gradient of the softmax of a tile: with p = exp(score − logsumexp) and dropout factors f (1 when null), replaces
/// `scores` by p·f and `gradients`, the gradient of p·f, by that of the scores: p·(f·gradient − delta).
struct AttentionSoftmaxGradient {
    template <int Width, class S>
    [[gnu::always_inline]] static inline void run(int keys, int queries, S* scores, S* gradients,
                                                  const AttentionWindow<S>& window, const S* factors,
                                                  const S* logsumexp, const S* delta) {
        constexpr int lanes = Width * 4 / static_cast<int>(sizeof(S)), wide = 4;
        int q = 0;
        for (; q + (wide - 1) * lanes < queries; q += wide * lanes) {
            columns<lanes, wide>(keys, q, scores, gradients, window, factors, logsumexp, delta);
        }
        for (; q < queries; q += lanes) {
            columns<lanes, 1>(keys, q, scores, gradients, window, factors, logsumexp, delta);
        }
    }

  private:
    template <int Lanes, int Vectors, class S>
    [[gnu::always_inline]] static inline void columns(int keys, int q, S* scores, S* gradients,
                                                      const AttentionWindow<S>& window, const S* factors,
                                                      const S* logsumexp, const S* delta) {
        using V = simd::Vec<S, Lanes>;
        for (int key = 0; key < keys; ++key) {
            V p[Vectors];
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) {
                const int lane = q + v * Lanes;
                p[v] = simd::load<V>(scores + key * attention_tile + lane) - simd::load<V>(logsumexp + lane);
            }
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) {
                p[v] = simd::softmax_exp(p[v]);
            }
            if (window.low != nullptr) {
                const V index(static_cast<S>(key)), none(S(0));
#pragma GCC unroll 4
                for (int v = 0; v < Vectors; ++v) {
                    const int lane = q + v * Lanes;
                    p[v] = select(index <= simd::load<V>(window.high + lane), p[v], none);
                    p[v] = select(simd::load<V>(window.low + lane) <= index, p[v], none);
                }
            }
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) {
                const int lane = q + v * Lanes, at = key * attention_tile + lane;
                const V gradient = simd::load<V>(gradients + at), mean = simd::load<V>(delta + lane);
                const V factor = factors != nullptr ? simd::load<V>(factors + at) : V(S(1));
                simd::store(p[v] * factor, scores + at);
                simd::store(p[v] * (factor * gradient - mean), gradients + at);
            }
        }
    }
};

/// Multiplies the columns of rows [dim, 64] by a factor each.
struct AttentionScaleColumns {
    template <int Width, class S>
    [[gnu::always_inline]] static inline void run(int dim, int queries, const S* factors, S* rows) {
        using V = simd::Vec<S, Width * 4 / static_cast<int>(sizeof(S))>;
        for (int d = 0; d < dim; ++d) {
            for (int q = 0; q < queries; q += V::size) {
                S* row = rows + d * attention_tile + q;
                simd::store(simd::load<V>(row) * simd::load<V>(factors + q), row);
            }
        }
    }
};

} // namespace lowrank::detail
