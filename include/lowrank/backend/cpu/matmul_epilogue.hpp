// The end of a matrix product: a row of sums is scaled, shifted, activated, added to a residual and stored in one pass.
#pragma once

#include <cstdint>

#include "lowrank/math/unary.hpp"
#include "lowrank/simd/functions.hpp"
#include "lowrank/simd/memory.hpp"
#include "lowrank/tensor/matmul_problem.hpp"

namespace lowrank::detail {

template <class V>
LOWRANK_INLINE V activate(Activation activation, V x) {
    switch (activation) {
    case Activation::none: break;
    case Activation::relu: return math::Relu::f(x);
    case Activation::gelu_tanh: return math::GeluTanh::f(x);
    case Activation::gelu_erf: return math::GeluErf::f(x);
    }
    return x;
}

/// All lanes of a vector, or where `n` is smaller the first n: the branch is taken once for a whole row but its end.
template <class V, class S>
LOWRANK_INLINE V load_lanes(const S* p, int n) {
    return n == V::size ? simd::load<V>(p) : simd::load<V>(p, static_cast<std::size_t>(n));
}
template <class S, class V>
LOWRANK_INLINE void store_lanes(S* p, V x, int n) {
    n == V::size ? simd::store(x, p) : simd::store(x, p, static_cast<std::size_t>(n));
}

/// Finishes `width` sums of one row: they belong to the columns from `column` on, and to the elements from `offset` on
/// of every matrix of the result's shape.
template <int Lanes, class T, class Out>
LOWRANK_INLINE void finish_row(const MatmulEpilogue<T, Out>& e, const compute_t<T>* sums, int width,
                               std::int64_t column, std::int64_t offset, Out* out) {
    using V = simd::Vec<compute_t<T>, Lanes>;
    for (int j = 0; j < width; j += Lanes) {
        const int n = width - j < Lanes ? width - j : Lanes;
        V y = simd::load<V>(sums + j); // rows of sums are padded
        if (e.unscaled != nullptr) {
            store_lanes(e.unscaled + offset + j, y, n);
        }
        if (e.column_scale != nullptr) {
            y = y * load_lanes<V>(e.column_scale + column + j, n);
        }
        if (e.bias != nullptr) {
            y = y + load_lanes<V>(e.bias + column + j, n);
        }
        if (e.pre_activation != nullptr) {
            store_lanes(e.pre_activation + offset + j, y, n);
        }
        y = activate(e.activation, y);
        if (e.residual != nullptr) {
            y = y + load_lanes<V>(e.residual + offset + j, n);
        }
        if (e.accumulate) {
            y = y + load_lanes<V>(out + offset + j, n);
        }
        store_lanes(out + offset + j, y, n);
    }
}

/// Finishes a tile: `rows` rows of `width` sums, `sums_row` apart, whose results are `row` elements apart.
template <int Lanes, class T, class Out>
LOWRANK_INLINE void finish_rows(const MatmulEpilogue<T, Out>& e, std::int64_t rows, const compute_t<T>* sums,
                                std::int64_t sums_row, int width, std::int64_t column, std::int64_t offset,
                                std::int64_t row, Out* out) {
    using V = simd::Vec<compute_t<T>, Lanes>;
    const bool is_sum = e.column_scale == nullptr && e.activation == Activation::none && e.unscaled == nullptr &&
                        e.pre_activation == nullptr && !(e.residual != nullptr && e.accumulate);
    if (!is_sum || width % Lanes != 0) {
        for (std::int64_t r = 0; r < rows; ++r) {
            finish_row<Lanes>(e, sums + r * sums_row, width, column, offset + r * row, out);
        }
        return;
    }
    const Out* added = e.accumulate ? out : e.residual;
    const auto* bias = e.bias;
    for (std::int64_t r = 0; r < rows; ++r, sums += sums_row, offset += row) {
        for (int j = 0; j < width; j += Lanes) {
            V y = simd::load<V>(sums + j);
            if (bias != nullptr) {
                y = y + simd::load<V>(bias + column + j);
            }
            if (added != nullptr) {
                y = y + simd::load<V>(added + offset + j);
            }
            simd::store(y, out + offset + j);
        }
    }
}

} // namespace lowrank::detail
