// The end of a matrix product: a row of sums is scaled, shifted, activated, added to a residual and stored in one pass.
#pragma once

#include <cstdint>
#include <type_traits>

#include "lowrank/backend/cpu/matmul_tile.hpp"
#include "lowrank/math/unary.hpp"
#include "lowrank/simd/dispatch.hpp"
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

/// Finishes `count` sums, the first of which belongs to `column` and to element `offset` of every matrix of the
/// result's shape. A count that the compiler knows costs no branches.
template <int Lanes, bool HasActivation, class T, class Out, class Count>
LOWRANK_INLINE void finish_vector(const MatmulEpilogue<T, Out>& e, const compute_t<T>* sums, Count count,
                                  std::int64_t column, std::int64_t offset, Out* out) {
    using V = simd::Vec<compute_t<T>, Lanes>;
    V y = simd::load<V>(sums); // rows of sums are padded
    if (e.unscaled != nullptr) {
        simd::store(y, e.unscaled + offset, count);
    }
    if (e.column_scale != nullptr) {
        y = y * simd::load<V>(e.column_scale + column, count);
    }
    if (e.bias != nullptr) {
        y = y + simd::load<V>(e.bias + column, count);
    }
    if (e.pre_activation != nullptr) {
        simd::store(y, e.pre_activation + offset, count);
    }
    if constexpr (HasActivation) {
        y = activate(e.activation, y);
    }
    if (e.residual != nullptr) {
        y = y + simd::load<V>(e.residual + offset, count);
    }
    if (e.accumulate) {
        y = y + simd::load<V>(out + offset, count);
    }
    simd::store(y, out + offset, count);
}

/// Finishes `rows` rows of `width` sums, `sums_row` apart: they belong to the columns from `column` on, and to the
/// elements from `offset` on, `row` apart, of every matrix of the result's shape.
struct FinishRows {
    template <int Width, class T, class Out>
    LOWRANK_INLINE static void run(const MatmulEpilogue<T, Out>& epilogue, std::int64_t rows, const compute_t<T>* sums,
                                   std::int64_t sums_row, int width, std::int64_t column, std::int64_t offset,
                                   std::int64_t row, Out* out) {
        constexpr int lanes = tile_lanes<compute_t<T>>(Width);
        const MatmulEpilogue<T, Out> e = epilogue; // which what is stored cannot change: so it stays in registers
        if (width % lanes != 0 || e.activation != Activation::none) {
            for (std::int64_t r = 0; r < rows; ++r, sums += sums_row, offset += row) {
                for (int j = 0; j < width; j += lanes) {
                    const int count = width - j < lanes ? width - j : lanes;
                    finish_vector<lanes, true>(e, sums + j, count, column + j, offset + j, out);
                }
            }
        } else if (!e.is_plain() || e.accumulate) {
            for (std::int64_t r = 0; r < rows; ++r, sums += sums_row, offset += row) {
                for (int j = 0; j < width; j += lanes) {
                    constexpr std::integral_constant<int, lanes> all;
                    finish_vector<lanes, false>(e, sums + j, all, column + j, offset + j, out);
                }
            }
        } else {
            for (std::int64_t r = 0; r < rows; ++r, sums += sums_row, offset += row) {
                for (int j = 0; j < width; j += lanes) {
                    simd::store(simd::load<simd::Vec<compute_t<T>, lanes>>(sums + j), out + offset + j);
                }
            }
        }
    }
};

/// FinishRows on the instruction set in use. A function, so that the kernel is compiled once for all who call it.
template <class T, class Out>
void finish_sums(const MatmulEpilogue<T, Out>& epilogue, std::int64_t rows, const compute_t<T>* sums,
                 std::int64_t sums_row, int width, std::int64_t column, std::int64_t offset, std::int64_t row,
                 Out* out) {
    simd::run_for_isa<FinishRows>(epilogue, rows, sums, sums_row, width, column, offset, row, out);
}

} // namespace lowrank::detail
