// Attention on the host, forward and backward, tile by tile: no matrix of length × length is ever stored.
// Dao, "FlashAttention-2: faster attention with better parallelism and work partitioning", 2023.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <utility>
#include <vector>

#include "lowrank/backend/cpu/arithmetic.hpp"
#include "lowrank/backend/cpu/attention_factors.hpp"
#include "lowrank/backend/cpu/attention_tile.hpp"
#include "lowrank/backend/cpu/dropout.hpp"
#include "lowrank/backend/cpu/rows.hpp"
#include "lowrank/core/storage.hpp"
#include "lowrank/tensor/copy_block.hpp"

namespace lowrank {

/// Extents of an attention. Each key-value head serves heads / kv_heads query heads. The queries are the last `length`
/// of `length_kv` positions.
struct AttentionSizes {
    std::int64_t batch, length, length_kv, heads, kv_heads, head_dim;
};

/// Where q, k, v or a gradient lies: the strides, in elements, of [batch, length, heads]; head_dim has stride 1.
struct AttentionLayout {
    std::int64_t batch, row, head;

    std::int64_t at(std::int64_t b, std::int64_t i, std::int64_t h) const { return b * batch + i * row + h * head; }
};

/// What else an attention does: numbers only.
struct AttentionRule {
    double scale;       ///< of the scores
    bool causal;        ///< a query sees no later position than its own
    double p;           ///< dropout of the probabilities
    std::uint32_t site; ///< stream of the random numbers
};

/// The random word that decides about the probability of query i and key j, in head `row` = batch index · heads + head.
/// A block of the generator covers four neighbouring keys.
constexpr std::uint32_t attention_dropout_word(std::uint64_t seed, std::uint32_t site, const AttentionSizes& sizes,
                                               std::int64_t row, std::int64_t i, std::int64_t j) {
    const std::int64_t quads = (sizes.length_kv + 3) / 4;
    return random_block(seed, site, std::uint64_t((row * sizes.length + i) * quads + j / 4))[std::size_t(j % 4)];
}

namespace detail {

/// Blocks of 64 queries in a task of the forward pass: they share the packed keys and values.
inline constexpr std::int64_t attention_chunk = 8;

/// Copies the vectors at from + offsets[i], times `scale`, to consecutive rows of `to_row` values.
template <class T, class S>
void attention_gather(int count, int dim, const T* from, const std::int64_t* offsets, S scale, S* to, int to_row) {
    simd::run_for_isa<AttentionGather>(count, dim, from, offsets, scale, to, to_row);
}

/// What all tasks of an attention share. The queries of one key-value head are numbered r = i · group + g: position,
/// then head of the group; so those that share keys are lanes of the same tiles.
template <class T>
struct AttentionProblem {
    using S = compute_t<T>;

    AttentionSizes sizes;
    const T *q, *k, *v;
    AttentionLayout q_layout, k_layout, v_layout;
    const std::int32_t* document_start;
    AttentionRule rule;
    DropoutRule dropout;

    std::int64_t group() const { return sizes.heads / sizes.kv_heads; }
    std::int64_t rows() const { return sizes.length * group(); }
    std::int64_t blocks() const { return (rows() + attention_tile - 1) / attention_tile; }

    /// Packs the keys or values of one head, from `begin` on.
    template <class Factors>
    void pack(const T* from, const AttentionLayout& layout, std::int64_t b, std::int64_t head, std::int64_t begin,
              AttentionTiles<S, Factors>& tiles) const {
        const auto dim = static_cast<int>(sizes.head_dim);
        tiles.pack([&](std::int64_t first, int count, S* to) {
            std::int64_t offsets[attention_tile];
            for (int i = 0; i < count; ++i) {
                offsets[i] = layout.at(b, begin + first + i, head);
            }
            attention_gather(count, dim, from, offsets, S(1), to, dim);
        });
    }
};

/// Up to 64 queries: what they see, and where they lie.
template <class T>
struct AttentionQueries {
    using S = compute_t<T>;
    static constexpr int tile = attention_tile;

    std::int64_t batch;
    int count;                          // of queries; the other lanes repeat the last one
    std::int64_t low[tile], high[tile]; // first and last key of each query
    std::int64_t min_low, max_low, min_high, max_high;
    std::int64_t position[tile], head[tile],
        row[tile];                            // of each query; row = (batch · heads + head) · length + position
    alignas(64) std::uint64_t counters[tile]; // of the generator, for key 0

    AttentionQueries(const AttentionProblem<T>& problem, std::int64_t b, std::int64_t kv_head, std::int64_t first)
        : batch(b) {
        const AttentionSizes& s = problem.sizes;
        const std::int64_t group = problem.group();
        count = static_cast<int>(std::min<std::int64_t>(tile, problem.rows() - first));
        for (int lane = 0; lane < tile; ++lane) {
            const std::int64_t r = first + std::min(lane, count - 1);
            const std::int64_t i = r / group, own = s.length_kv - s.length + i;
            position[lane] = i;
            head[lane] = kv_head * group + r % group;
            row[lane] = (batch * s.heads + head[lane]) * s.length + i;
            high[lane] = problem.rule.causal ? own : s.length_kv - 1;
            low[lane] = problem.document_start == nullptr
                            ? 0
                            : std::clamp<std::int64_t>(problem.document_start[batch * s.length + i], 0, own);
            counters[lane] = static_cast<std::uint64_t>(row[lane] * ((s.length_kv + 3) / 4));
        }
        min_low = *std::min_element(low, low + tile);
        max_low = *std::max_element(low, low + tile);
        min_high = *std::min_element(high, high + tile);
        max_high = *std::max_element(high, high + tile);
    }

    std::int64_t offset(int lane, const AttentionLayout& layout) const {
        return layout.at(batch, position[lane], head[lane]);
    }

    /// Copies the queries' vectors of q, y or dy, times `scale`, to consecutive rows of `to_row` values.
    void gather(const T* from, const AttentionLayout& layout, int dim, S scale, S* to, int to_row) const {
        std::int64_t offsets[tile];
        for (int i = 0; i < count; ++i) {
            offsets[i] = offset(i, layout);
        }
        attention_gather(count, dim, from, offsets, scale, to, to_row);
    }

    /// The window of a tile of keys; `bounds` has room for two rows. Null pointers where all queries see all keys.
    AttentionWindow<S> window(std::int64_t key0, std::int64_t keys, S* bounds) const {
        if (max_low <= key0 && min_high >= key0 + keys - 1) {
            return {nullptr, nullptr};
        }
        for (int lane = 0; lane < tile; ++lane) {
            bounds[lane] = static_cast<S>(std::clamp<std::int64_t>(low[lane] - key0, 0, keys));
            bounds[tile + lane] = static_cast<S>(std::clamp<std::int64_t>(high[lane] - key0, -1, keys));
        }
        return {bounds, bounds + tile};
    }

    /// The dropout factors of a tile; null without dropout.
    const S* factors(const AttentionProblem<T>& problem, std::int64_t key0, std::int64_t keys, S* memory) const {
        if (problem.rule.p == 0.0) {
            return nullptr;
        }
        simd::run_for_isa<DropoutFactors>(problem.dropout, counters, (count + 15) / 16 * 16, std::uint64_t(key0 / 4),
                                          std::uint64_t(1), static_cast<int>((keys + 3) / 4), memory,
                                          std::int64_t(tile));
        return memory;
    }
};

/// The layout of the output and its gradient: contiguous [batch, length, heads · head_dim].
inline AttentionLayout attention_output_layout(const AttentionSizes& s) {
    return {s.length * s.heads * s.head_dim, s.heads * s.head_dim, s.head_dim};
}

/// The rows of `from` [count, from_row] as columns of `to` [dim, 64]; the other columns become zero.
template <class S>
void attention_transpose(int count, int dim, const S* from, int from_row, S* to) {
    if (count < attention_tile) {
        std::fill_n(to, dim * attention_tile, S(0));
    }
    copy_block(count, dim, from, from_row, to, 1, attention_tile);
}

/// Writes the columns of `from` [dim, 64], which are queries, times a factor each, to where the queries lie in `to`.
/// `from` is changed; `rows` is memory for its transpose.
template <class T>
void attention_scatter(const AttentionQueries<T>& queries, int dim, compute_t<T>* from, const compute_t<T>* factors,
                       const AttentionLayout& layout, compute_t<T>* rows, T* to) {
    simd::run_for_isa<AttentionScaleColumns>(dim, queries.count, factors, from);
    copy_block(dim, queries.count, from, attention_tile, rows, 1, dim);
    for (int i = 0; i < queries.count; ++i) {
        copy_block(1, dim, rows + i * dim, dim, to + queries.offset(i, layout), dim, 1);
    }
}

/// The scale of the scores: what the queries are multiplied by, and the rest of it.
template <class S, class Factors>
struct AttentionScale {
    S of_queries, rest[attention_tile];

    explicit AttentionScale(double scale) : of_queries(Factors::scale_of_queries(static_cast<S>(scale))) {
        std::fill_n(rest, attention_tile, static_cast<S>(scale) / of_queries);
    }
    /// Multiplies a tile [keys, queries] by the rest.
    void finish(int keys, int queries, S* values) const {
        if (rest[0] != S(1)) {
            simd::run_for_isa<AttentionScaleColumns>(keys, queries, static_cast<const S*>(rest), values);
        }
    }
};

/// The forward pass for up to attention_chunk blocks of queries, from `block0`, of one key-value head.
template <class Factors, class T>
void attention_forward_task(const AttentionProblem<T>& problem, std::int64_t batch, std::int64_t kv_head,
                            std::int64_t block0, T* y, compute_t<T>* logsumexp) {
    using S = compute_t<T>;
    constexpr int tile = attention_tile;
    const AttentionSizes& s = problem.sizes;
    const AttentionLayout output_layout = attention_output_layout(s);
    const int dim = static_cast<int>(s.head_dim), padded = Factors::padded(dim);
    std::vector<AttentionQueries<T>> queries;
    std::int64_t first = s.length_kv, last = -1;
    for (std::int64_t b = block0; b < std::min(block0 + attention_chunk, problem.blocks()); ++b) {
        const AttentionQueries<T>& block = queries.emplace_back(problem, batch, kv_head, b * tile);
        first = std::min(first, block.min_low);
        last = std::max(last, block.max_high);
    }
    first = first / tile * tile; // tiles begin at multiples of 64: so do the counters of dropout
    [[maybe_unused]] const Factors factors{};
    const AttentionScale<S, Factors> scale(problem.rule.scale);
    AttentionTiles<S, Factors> keys(last + 1 - first, dim, true, false), values(last + 1 - first, dim, false, true);
    problem.pack(problem.k, problem.k_layout, batch, kv_head, first, keys);
    problem.pack(problem.v, problem.v_layout, batch, kv_head, first, values);
    AttentionScratch<S> scratch(3 * tile * padded + 2 * tile * tile + 4 * tile + Factors::right_room(dim, tile) +
                                Factors::right_room(tile, tile) + Factors::left_room(tile, dim));
    S *q = scratch.take(tile * padded), *q_t = scratch.take(tile * padded), *output = scratch.take(tile * padded);
    S *scores = scratch.take(tile * tile), *mask = scratch.take(tile * tile), *bounds = scratch.take(2 * tile);
    S *maxima = scratch.take(tile), *sums = scratch.take(tile);
    S *packed_q = scratch.take(Factors::right_room(dim, tile)),
      *packed_p = scratch.take(Factors::right_room(tile, tile));

    for (const AttentionQueries<T>& block : queries) {
        block.gather(problem.q, problem.q_layout, dim, scale.of_queries, q, dim);
        attention_transpose(block.count, dim, q, dim, q_t);
        const AttentionRight<S> query = Factors::right(dim, q_t, tile, packed_q);
        std::fill_n(output, padded * tile, S(0));
        std::fill_n(maxima, tile, AttentionSoftmax::unseen<S>);
        std::fill_n(sums, tile, S(0));
        for (std::int64_t key0 = block.min_low / tile * tile; key0 <= block.max_high; key0 += tile) {
            const auto count = static_cast<int>(std::min<std::int64_t>(tile, block.max_high + 1 - key0));
            const auto index = static_cast<std::size_t>((key0 - first) / tile);
            Factors::multiply(count, block.count, dim, keys.rows[index], query, scores, tile, false);
            scale.finish(count, block.count, scores);
            simd::run_for_isa<AttentionSoftmax>(count, block.count, scores, block.window(key0, count, bounds),
                                                block.factors(problem, key0, count, mask), maxima, sums, output, dim);
            Factors::multiply(dim, block.count, count, values.columns[index],
                              Factors::right(count, scores, tile, packed_p), output, tile, true);
        }
        for (int i = 0; i < block.count; ++i) {
            logsumexp[block.row[i]] = maxima[i] + std::log(sums[i]);
        }
        for (int i = 0; i < tile; ++i) {
            sums[i] = S(1) / sums[i];
        }
        attention_scatter(block, dim, output, sums, output_layout, q, y);
    }
}

/// Where the gradients go; null where one is not wanted.
template <class T>
struct AttentionGradients {
    T *dq, *dk, *dv;
    AttentionLayout dq_layout, dk_layout, dv_layout;
};

/// The backward pass for one key-value head.
template <class Factors, class T>
void attention_backward_task(const AttentionProblem<T>& problem, std::int64_t batch, std::int64_t kv_head, const T* y,
                             const compute_t<T>* logsumexp, const T* dy, const AttentionGradients<T>& gradients) {
    using S = compute_t<T>;
    constexpr int tile = attention_tile;
    const AttentionSizes& s = problem.sizes;
    const AttentionLayout output_layout = attention_output_layout(s);
    const int dim = static_cast<int>(s.head_dim), padded = Factors::padded(dim); // room for whole vectors
    const std::int64_t key_sums = (s.length_kv + tile - 1) / tile * tile * padded;
    [[maybe_unused]] const Factors factors{};
    const AttentionScale<S, Factors> scale(problem.rule.scale);
    AttentionTiles<S, Factors> keys(s.length_kv, dim, true, true), values(s.length_kv, dim, true, false);
    problem.pack(problem.k, problem.k_layout, batch, kv_head, 0, keys);
    problem.pack(problem.v, problem.v_layout, batch, kv_head, 0, values);
    const std::int64_t right_t = Factors::right_room(dim, tile), right = Factors::right_room(tile, dim);
    const std::int64_t square = std::max(Factors::right_room(tile, tile), Factors::left_room(tile, tile));
    AttentionScratch<S> scratch(2 * key_sums + 3 * tile * tile + 4 * tile + 5 * tile * padded + 2 * right_t +
                                2 * right + square);
    S *dk = scratch.take(key_sums), *dv = scratch.take(key_sums);
    S *scores = scratch.take(tile * tile), *slopes = scratch.take(tile * tile), *mask = scratch.take(tile * tile);
    S *bounds = scratch.take(2 * tile), *shift = scratch.take(tile), *delta = scratch.take(tile);
    S *q = scratch.take(tile * padded), *dout = scratch.take(tile * padded); // [queries, head_dim]
    S *q_t = scratch.take(tile * padded), *dout_t = scratch.take(tile * padded),
      *dq_t = scratch.take(tile * padded); // transposed
    S *packed_q_t = scratch.take(right_t), *packed_dout_t = scratch.take(right_t);
    S *packed_q = scratch.take(right), *packed_dout = scratch.take(right), *packed = scratch.take(square);
    std::fill_n(dk, key_sums, S(0));
    std::fill_n(dv, key_sums, S(0));
    std::fill_n(q, tile * padded, S(0));
    std::fill_n(dout, tile * padded, S(0));

    for (std::int64_t b = 0; b < problem.blocks(); ++b) {
        const AttentionQueries<T> block(problem, batch, kv_head, b * tile);
        std::fill_n(dq_t, tile * padded, S(0));
        block.gather(problem.q, problem.q_layout, dim, scale.of_queries, q, padded);
        attention_transpose(block.count, dim, q, padded, q_t);
        block.gather(dy, output_layout, dim, S(1), dout, padded);
        attention_transpose(block.count, dim, dout, padded, dout_t);
        const AttentionRight<S> query_t = Factors::right(dim, q_t, tile, packed_q_t),
                                dy_t = Factors::right(dim, dout_t, tile, packed_dout_t),
                                query = Factors::right(block.count, q, padded, packed_q),
                                dy_rows = Factors::right(block.count, dout, padded, packed_dout);
        for (int i = 0; i < tile; ++i) {
            const int lane = std::min(i, block.count - 1);
            delta[i] = static_cast<S>(
                simd::run_for_isa<RowDot>(s.head_dim, y + block.offset(lane, output_layout), dout + lane * padded));
            shift[i] = logsumexp[block.row[i]];
        }
        for (std::int64_t key0 = block.min_low / tile * tile; key0 <= block.max_high; key0 += tile) {
            const auto count = static_cast<int>(std::min<std::int64_t>(tile, block.max_high + 1 - key0));
            const auto index = static_cast<std::size_t>(key0 / tile);
            Factors::multiply(count, block.count, dim, keys.rows[index], query_t, scores, tile, false);
            Factors::multiply(count, block.count, dim, values.rows[index], dy_t, slopes, tile, false);
            scale.finish(count, block.count, scores);
            simd::run_for_isa<AttentionSoftmaxGradient>(count, block.count, scores, slopes,
                                                        block.window(key0, count, bounds),
                                                        block.factors(problem, key0, count, mask), shift, delta);
            scale.finish(count, block.count, slopes);
            if (gradients.dv != nullptr) {
                Factors::multiply(count, dim, block.count, Factors::rows(count, block.count, scores, tile, packed),
                                  dy_rows, dv + key0 * padded, padded, true);
            }
            if (gradients.dk != nullptr) {
                Factors::multiply(count, dim, block.count, Factors::rows(count, block.count, slopes, tile, packed),
                                  query, dk + key0 * padded, padded, true);
            }
            if (gradients.dq != nullptr) {
                Factors::multiply(dim, block.count, count, keys.columns[index],
                                  Factors::right(count, slopes, tile, packed), dq_t, tile, true);
            }
        }
        if (gradients.dq != nullptr) {
            std::fill_n(shift, tile, scale.of_queries);
            attention_scatter(block, dim, dq_t, shift, gradients.dq_layout, dout_t, gradients.dq);
        }
    }
    if (gradients.dk != nullptr) {
        copy_block(s.length_kv, dim, dk, padded, gradients.dk + gradients.dk_layout.at(batch, 0, kv_head),
                   gradients.dk_layout.row, 1);
    }
    if (gradients.dv != nullptr) {
        copy_block(s.length_kv, dim, dv, padded, gradients.dv + gradients.dv_layout.at(batch, 0, kv_head),
                   gradients.dv_layout.row, 1);
    }
}

template <class T>
AttentionProblem<T> attention_problem(const AttentionSizes& sizes, const T* q, const AttentionLayout& q_layout,
                                      const T* k, const AttentionLayout& k_layout, const T* v,
                                      const AttentionLayout& v_layout, const std::int32_t* document_start,
                                      const AttentionRule& rule, const std::int64_t* seed) {
    const DropoutRule dropout{rule.p == 0.0 ? 0 : static_cast<std::uint64_t>(*seed), rule.site, rule.p};
    return {sizes, q, k, v, q_layout, k_layout, v_layout, document_start, rule, dropout};
}

/// Calls visit.operator()<Factors>() with those that the instruction set in use multiplies fastest.
template <class T, class Visit>
void with_attention_factors(const Visit& visit) {
#if defined(__x86_64__)
    if constexpr (std::same_as<compute_t<T>, float>) {
        if (simd::active_isa() == simd::Isa::amx_bf16) {
            visit.template operator()<AttentionPairs<std::same_as<T, bf16> ? 1 : 3>>();
            return;
        }
    }
#endif
    visit.template operator()<AttentionValues<compute_t<T>>>();
}

} // namespace detail

/// y = softmax(scale · q·kᵀ)·v for every head; y is contiguous [batch, length, heads · head_dim], and `logsumexp`, of
/// [batch, heads, length], is what the backward pass needs beside it. `document_start` (may be null; [batch, length])
/// is the first key each query sees. `seed` is read only where rule.p > 0.
template <class T>
void attention_forward(Cpu, const AttentionSizes& sizes, const T* q, const AttentionLayout& q_layout, const T* k,
                       const AttentionLayout& k_layout, const T* v, const AttentionLayout& v_layout,
                       const std::int32_t* document_start, const AttentionRule& rule, const std::int64_t* seed, T* y,
                       compute_t<T>* logsumexp) {
    const auto problem =
        detail::attention_problem(sizes, q, q_layout, k, k_layout, v, v_layout, document_start, rule, seed);
    const std::int64_t chunks = (problem.blocks() + detail::attention_chunk - 1) / detail::attention_chunk;
    parallel_for(sizes.batch * sizes.kv_heads * chunks, [&](std::int64_t task) {
        const std::int64_t head = task / chunks;
        const std::int64_t chunk = chunks - 1 - task % chunks; // the longest first
        detail::with_attention_factors<T>([&]<class Factors>() {
            detail::attention_forward_task<Factors>(problem, head / sizes.kv_heads, head % sizes.kv_heads,
                                                    chunk * detail::attention_chunk, y, logsumexp);
        });
    });
}

/// The gradients of attention_forward, written (not added) to dq, dk and dv with layouts of their own; null pointers
/// where one is not wanted. The sums over queries run in order within each key-value head.
template <class T>
void attention_backward(Cpu, const AttentionSizes& sizes, const T* q, const AttentionLayout& q_layout, const T* k,
                        const AttentionLayout& k_layout, const T* v, const AttentionLayout& v_layout,
                        const std::int32_t* document_start, const AttentionRule& rule, const std::int64_t* seed,
                        const T* y, const compute_t<T>* logsumexp, const T* dy, T* dq, const AttentionLayout& dq_layout,
                        T* dk, const AttentionLayout& dk_layout, T* dv, const AttentionLayout& dv_layout) {
    const auto problem =
        detail::attention_problem(sizes, q, q_layout, k, k_layout, v, v_layout, document_start, rule, seed);
    const detail::AttentionGradients<T> gradients{dq, dk, dv, dq_layout, dk_layout, dv_layout};
    parallel_for(sizes.batch * sizes.kv_heads, [&](std::int64_t head) {
        detail::with_attention_factors<T>([&]<class Factors>() {
            detail::attention_backward_task<Factors>(problem, head / sizes.kv_heads, head % sizes.kv_heads, y,
                                                     logsumexp, dy, gradients);
        });
    });
}

} // namespace lowrank
