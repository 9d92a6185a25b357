// The register tile of the matmul engine: a few rows times one or two vectors of columns, over a block of K.
#pragma once

#include <cstdint>

#include "lowrank/simd/vec.hpp"

namespace lowrank::detail {

/// Lanes of C in a register of `width` floats.
template <class C>
constexpr int tile_lanes(int width) {
    return width * 4 / static_cast<int>(sizeof(C));
}
/// Rows of the tile. AVX-512 has 32 registers, the others 16; two vectors of columns and the row's value need three.
constexpr int tile_rows_of(int width) {
    return width == 16 ? 14 : width == 8 ? 6 : 4;
}

/// c[R, Vectors·lanes] (+)= a[R, k]·b[k, Vectors·lanes]. `a` is packed with `a_stride` values per step of k, `b` with
/// `b_stride`; rows of c are `c_stride` apart.
template <class C, int Lanes, int R, int Vectors>
[[gnu::always_inline]] inline void multiply_tile(const C* a, std::int64_t a_stride, const C* b, std::int64_t b_stride,
                                                 C* c, std::int64_t c_stride, std::int64_t k, bool accumulate) {
    using V = simd::Vec<C, Lanes>;
    typedef C unaligned __attribute__((vector_size(sizeof(C) * Lanes), aligned(alignof(C)), may_alias));
    V sum[R][Vectors];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
        for (int j = 0; j < Vectors; ++j) {
            if (accumulate) {
                sum[r][j].v = *reinterpret_cast<const unaligned*>(c + r * c_stride + j * Lanes);
            } else {
                sum[r][j] = V(C(0));
            }
        }
    }
    for (std::int64_t i = 0; i < k; ++i) {
        V column[Vectors];
#pragma GCC unroll 2
        for (int j = 0; j < Vectors; ++j) {
            column[j].v = *reinterpret_cast<const unaligned*>(b + i * b_stride + j * Lanes);
        }
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const V row = V(a[i * a_stride + r]);
#pragma GCC unroll 2
            for (int j = 0; j < Vectors; ++j) {
                sum[r][j] = fma(row, column[j], sum[r][j]);
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
        for (int j = 0; j < Vectors; ++j) {
            *reinterpret_cast<unaligned*>(c + r * c_stride + j * Lanes) = sum[r][j].v;
        }
    }
}

/// A strip of up to tile_rows_of(Width) rows: the full tile, or for the last rows of a matrix smaller ones. `a` is a
/// packed strip, rows of `b` are `b_stride` apart, and c has rows of a panel, two vectors.
template <class C, int Width, int Vectors>
[[gnu::always_inline]] inline void multiply_strip(std::int64_t rows, const C* a, const C* b, std::int64_t b_stride,
                                                  C* c, std::int64_t k, bool accumulate) {
    constexpr int lanes = tile_lanes<C>(Width), full = tile_rows_of(Width), panel = 2 * lanes;
    if (rows == full) {
        multiply_tile<C, lanes, full, Vectors>(a, full, b, b_stride, c, panel, k, accumulate);
        return;
    }
    std::int64_t r = 0;
    for (; r + 4 <= rows; r += 4) {
        multiply_tile<C, lanes, 4, Vectors>(a + r, full, b, b_stride, c + r * panel, panel, k, accumulate);
    }
    for (; r < rows; ++r) {
        multiply_tile<C, lanes, 1, Vectors>(a + r, full, b, b_stride, c + r * panel, panel, k, accumulate);
    }
}

} // namespace lowrank::detail
