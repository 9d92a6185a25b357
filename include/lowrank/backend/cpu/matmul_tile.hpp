// The register tile of products: a few rows times a few vectors of columns, over a block of K.
#pragma once

#include <cstdint>

#include "lowrank/simd/accumulate.hpp"

namespace lowrank::detail {

/// Lanes of C in a register of `width` floats.
template <class C>
constexpr int tile_lanes(int width) {
    return width * 4 / static_cast<int>(sizeof(C));
}
/// Rows and vectors of columns of the tile: with the vectors of one step of k and the value of a row they fill the
/// registers, of which AVX-512 has 32 and the others 16.
constexpr int tile_rows_of(int width) {
    return width == 16 ? 9 : width == 8 ? 6 : 4;
}
constexpr int tile_vectors_of(int width) {
    return width == 16 ? 3 : 2;
}

/// What the numbers of packed factors are: values; pairs of bf16 that are neighbours in k; or such pairs for each of
/// the three bf16 whose sum is a float.
enum class Packed { values, bf16_pairs, bf16x3 };

/// sum += x·y, or the sum of a pair's products.
template <Packed Kind, class V, class X>
LOWRANK_INLINE V add_products(V sum, X x, V y) {
    if constexpr (Kind == Packed::bf16_pairs) {
        return simd::accumulate_pairs(sum, x, y);
    } else {
        return simd::accumulate(sum, x, y);
    }
}

/// c[R, Vectors·lanes] (+)= a[R, k]·b[k, Vectors·lanes]. Element (r, i) of a lies at r·a_row + i·a_step; rows of b are
/// `b_row` apart and rows of c `c_row`.
template <class C, int Lanes, int R, int Vectors, Packed Kind = Packed::values>
[[gnu::always_inline]] inline void multiply_tile(const C* a, std::int64_t a_row, std::int64_t a_step, const C* b,
                                                 std::int64_t b_row, C* c, std::int64_t c_row, std::int64_t k,
                                                 bool accumulate) {
    using V = simd::Vec<C, Lanes>;
    typedef C unaligned __attribute__((vector_size(sizeof(C) * Lanes), aligned(alignof(C)), may_alias));
    V sum[R][Vectors];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int j = 0; j < Vectors; ++j) {
            if (accumulate) {
                sum[r][j].v = *reinterpret_cast<const unaligned*>(c + r * c_row + j * Lanes);
            } else {
                sum[r][j] = V(C(0));
            }
        }
    }
    // Of three rows' values, two are loaded for all vectors, and one by each multiplication: so neither the loads nor
    // the other instructions are what a step of k waits for.
#pragma GCC unroll 4
    for (std::int64_t i = 0; i < k; ++i) {
        V column[Vectors];
#pragma GCC unroll 4
        for (int j = 0; j < Vectors; ++j) {
            column[j].v = *reinterpret_cast<const unaligned*>(b + i * b_row + j * Lanes);
        }
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            if (r % 3 == 1) {
#pragma GCC unroll 4
                for (int j = 0; j < Vectors; ++j) {
                    sum[r][j] = add_products<Kind>(sum[r][j], a + i * a_step + r * a_row, column[j]);
                }
            } else {
                const V row = V(a[i * a_step + r * a_row]);
#pragma GCC unroll 4
                for (int j = 0; j < Vectors; ++j) {
                    sum[r][j] = add_products<Kind>(sum[r][j], row, column[j]);
                }
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int j = 0; j < Vectors; ++j) {
            *reinterpret_cast<unaligned*>(c + r * c_row + j * Lanes) = sum[r][j].v;
        }
    }
}

/// A strip of up to tile_rows_of(Width) rows: the full tile, or for the last rows of a matrix smaller ones. `a` and `b`
/// lie as for a tile, and c has rows of a panel.
template <class C, int Width, int Vectors, Packed Kind>
[[gnu::always_inline]] inline void multiply_strip(std::int64_t rows, const C* a, std::int64_t a_row,
                                                  std::int64_t a_step, const C* b, std::int64_t b_row, C* c,
                                                  std::int64_t k, bool accumulate) {
    constexpr int lanes = tile_lanes<C>(Width), full = tile_rows_of(Width), panel = tile_vectors_of(Width) * lanes;
    if (rows == full) {
        multiply_tile<C, lanes, full, Vectors, Kind>(a, a_row, a_step, b, b_row, c, panel, k, accumulate);
        return;
    }
    std::int64_t r = 0;
    for (; r + 4 <= rows; r += 4) {
        multiply_tile<C, lanes, 4, Vectors, Kind>(a + r * a_row, a_row, a_step, b, b_row, c + r * panel, panel, k,
                                                  accumulate);
    }
    for (; r < rows; ++r) {
        multiply_tile<C, lanes, 1, Vectors, Kind>(a + r * a_row, a_row, a_step, b, b_row, c + r * panel, panel, k,
                                                  accumulate);
    }
}

/// The same for as many vectors as hold `columns`, a panel's or fewer.
template <class C, int Width, Packed Kind = Packed::values>
[[gnu::always_inline]] inline void multiply_columns(int columns, std::int64_t rows, const C* a, std::int64_t a_row,
                                                    std::int64_t a_step, const C* b, std::int64_t b_row, C* c,
                                                    std::int64_t k, bool accumulate) {
    constexpr int lanes = tile_lanes<C>(Width), vectors = tile_vectors_of(Width);
    if (columns <= lanes) {
        multiply_strip<C, Width, 1, Kind>(rows, a, a_row, a_step, b, b_row, c, k, accumulate);
        return;
    }
    if constexpr (vectors > 2) {
        if (columns <= 2 * lanes) {
            multiply_strip<C, Width, 2, Kind>(rows, a, a_row, a_step, b, b_row, c, k, accumulate);
            return;
        }
    }
    multiply_strip<C, Width, vectors, Kind>(rows, a, a_row, a_step, b, b_row, c, k, accumulate);
}

} // namespace lowrank::detail
