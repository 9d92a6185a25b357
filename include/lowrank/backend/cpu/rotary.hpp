// Rotary position embedding on the host: the table of angles, and the rotation of rows by it.
#pragma once

#include <cmath>
#include <cstdint>

#include "lowrank/backend/cpu/rows.hpp"
#include "lowrank/core/device.hpp"

namespace lowrank {
namespace detail {

/// (ya, yb) = (a, b) turned by the angle whose cosine and sine the table holds; backwards when direction is -1.
template <class T, class S>
struct RotaryStep {
    const T *a, *b;
    const S *cosine, *sine;
    S direction;
    T *ya, *yb;
    template <class V, bool Whole>
    LOWRANK_INLINE void operator()(const RowStep<V, Whole>& step) const {
        const V first = step.load(a), second = step.load(b), c = step.load(cosine), s = step.load(sine) * V(direction);
        step.store(first * c - second * s, ya);
        step.store(second * c + first * s, yb);
    }
};

/// All heads of one token.
struct RotaryToken {
    template <int Width, class T, class S>
    [[gnu::always_inline]] static inline void run(std::int64_t heads, std::int64_t head_dim, std::int64_t half,
                                                  const S* table, S direction, const T* x, std::int64_t head_stride,
                                                  T* y) {
        using V = RowVector<S, Width>;
        for (std::int64_t h = 0; h < heads; ++h, x += head_stride, y += head_dim) {
            row_map<V>(half, RotaryStep<T, S>{x, x + half, table, table + half, direction, y, y + half});
            for (std::int64_t i = 2 * half; i < head_dim; ++i) {
                y[i] = x[i];
            }
        }
    }
};

} // namespace detail

/// table [tokens, 2 · half]: the cosines and then the sines of position · frequency. The product is rounded to float as
/// in Transformers: a model's angles are what it was trained with.
template <class S>
void rotary_angles(Cpu, std::int64_t tokens, std::int64_t half, const std::int32_t* positions, const float* frequencies,
                   S* table) {
    for_rows(tokens, 32 * half, [=](std::int64_t t) { // a cosine costs as much as some 16 copies
        S* row = table + t * 2 * half;
        for (std::int64_t i = 0; i < half; ++i) {
            const double angle = static_cast<double>(static_cast<float>(positions[t]) * frequencies[i]);
            row[i] = static_cast<S>(std::cos(angle));
            row[half + i] = static_cast<S>(std::sin(angle));
        }
    });
}

/// y [batch, length, heads, head_dim] = x with the elements i and half + i of each head, i < half, turned by the
/// token's angles; direction is 1, or -1 for the inverse, which is the gradient. The batches' tables lie table_stride
/// apart; x has the given strides, and 1 for the last dimension.
template <class T>
void rotary_rows(Cpu, std::int64_t batch, std::int64_t length, std::int64_t heads, std::int64_t head_dim,
                 std::int64_t half, const compute_t<T>* table, std::int64_t table_stride, int direction, const T* x,
                 std::int64_t batch_stride, std::int64_t token_stride, std::int64_t head_stride, T* y) {
    for_rows(batch * length, heads * head_dim, [=](std::int64_t row) {
        const std::int64_t b = row / length, t = row % length;
        simd::run_for_isa<detail::RotaryToken>(
            heads, head_dim, half, table + b * table_stride + t * 2 * half, static_cast<compute_t<T>>(direction),
            x + b * batch_stride + t * token_stride, head_stride, y + row * heads * head_dim);
    });
}

} // namespace lowrank
