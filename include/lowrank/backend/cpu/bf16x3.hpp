// Packing fp32 factors for AMX, which multiplies bf16: every number becomes three of them, whose sum it is exactly.
// Henry, Tang and Heinecke, "Leveraging the bfloat16 artificial intelligence datatype for higher-precision
// computations", 2019: of the nine products of two such numbers, the six largest are as exact as those of fp32.
#pragma once

#include <algorithm>
#include <cstdint>

#include "lowrank/backend/cpu/bf16_pairs.hpp"
#include "lowrank/backend/cpu/matrix_operand.hpp"
#include "lowrank/simd/dispatch.hpp"
#include "lowrank/simd/memory.hpp"

namespace lowrank::detail {

/// The pairs of a chunk of numbers in k are i and i + pair_chunk, where those of bf16 are neighbours: so no lanes need
/// to be shuffled.
inline constexpr std::int64_t bf16x3_chunk = 2 * pair_chunk;

/// Lanes cut after their upper 16 bits, which are a bf16.
template <int N>
LOWRANK_INLINE simd::Vec<float, N> upper_halves(simd::Vec<float, N> x) {
    using naturals = typename simd::Vec<float, N>::naturals;
    return simd::Vec<float, N>::from_bits((naturals)x.v & 0xffff0000u);
}

/// Lanes rounded to bf16, ties away from zero. The result is to be finite.
template <int N>
LOWRANK_INLINE simd::Vec<float, N> rounded_to_upper_halves(simd::Vec<float, N> x) {
    using naturals = typename simd::Vec<float, N>::naturals;
    return upper_halves(simd::Vec<float, N>::from_bits((naturals)x.v + 0x8000u));
}

/// Pairs of bf16 that lie in the upper halves of the lanes.
template <int N>
LOWRANK_INLINE simd::Vec<float, N> pairs_of_upper_halves(simd::Vec<float, N> low, simd::Vec<float, N> high) {
    using naturals = typename simd::Vec<float, N>::naturals;
    return simd::Vec<float, N>::from_bits((naturals)low.v >> 16 | ((naturals)high.v & 0xffff0000u));
}

/// Stores the pairs (low, high) of each of the three parts, `part` numbers apart: the upper 8 bits of the significand,
/// the next 8, rounded, and the rest. The first are not rounded, so that no number becomes infinite.
template <int N>
LOWRANK_INLINE void store_bf16x3(simd::Vec<float, N> low, simd::Vec<float, N> high, float* to, std::int64_t part) {
    using V = simd::Vec<float, N>;
    simd::store(pairs_of_upper_halves<N>(low, high), to);
    low = low - upper_halves<N>(low);
    high = high - upper_halves<N>(high);
    const V middle_low = rounded_to_upper_halves<N>(low), middle_high = rounded_to_upper_halves<N>(high);
    simd::store(pairs_of_upper_halves<N>(middle_low, middle_high), to + part);
    simd::store(pairs_of_upper_halves<N>(low - middle_low, high - middle_high), to + 2 * part);
}

/// Splits `rows` rows of numbers times `scale` for a right factor: in a panel, each chunk of rows has three parts of
/// pair_chunk rows. Zeros stand for the rows that are missing in the last chunk. `columns` is a multiple of the width;
/// panels are `panel` columns and to_panel numbers apart.
struct SplitRows {
    template <int Width>
    LOWRANK_INLINE static void run(std::int64_t rows, std::int64_t columns, const float* from, std::int64_t from_row,
                                   float scale, float* to, std::int64_t panel, std::int64_t to_panel) {
        using V = simd::Vec<float, Width>;
        for (std::int64_t first = 0; first < rows; first += bf16x3_chunk, to += 3 * pair_chunk * panel) {
            for (std::int64_t i = 0; i < pair_chunk; ++i) {
                const std::int64_t low = first + i, high = low + pair_chunk;
                for (std::int64_t p = 0; p < columns; p += panel) {
                    float* target = to + i * panel + p / panel * to_panel;
                    const float *low_row = from + low * from_row + p, *high_row = from + high * from_row + p;
                    const std::int64_t end = std::min(panel, columns - p);
                    for (std::int64_t c = 0; c < end; c += V::size) {
                        store_bf16x3<Width>(low < rows ? simd::load<V>(low_row + c) * V(scale) : V(0.0f),
                                            high < rows ? simd::load<V>(high_row + c) * V(scale) : V(0.0f), target + c,
                                            pair_chunk * panel);
                    }
                }
            }
        }
    }
};

/// Splits chunks of numbers in `rows` rows of a left factor: each has three parts of pair_chunk pairs.
struct SplitColumns {
    template <int Width>
    LOWRANK_INLINE static void run(std::int64_t rows, std::int64_t chunks, const float* from, std::int64_t from_row,
                                   float* to, std::int64_t to_row) {
        using V = simd::Vec<float, Width>;
        for (std::int64_t r = 0; r < rows; ++r) {
            const float* source = from + r * from_row;
            float* target = to + r * to_row;
            for (std::int64_t chunk = 0; chunk < chunks; ++chunk, source += bf16x3_chunk, target += 3 * pair_chunk) {
                for (std::int64_t i = 0; i < pair_chunk; i += V::size) {
                    store_bf16x3<Width>(simd::load<V>(source + i), simd::load<V>(source + i + pair_chunk), target + i,
                                        pair_chunk);
                }
            }
        }
    }
};

// Functions, so that the kernels are compiled once for all who call them.
inline void split_rows(std::int64_t rows, std::int64_t columns, const float* from, std::int64_t from_row, float scale,
                       float* to, std::int64_t panel, std::int64_t to_panel) {
    simd::run_with_avx512<SplitRows>(rows, columns, from, from_row, scale, to, panel, to_panel);
}
inline void split_columns(std::int64_t rows, std::int64_t chunks, const float* from, std::int64_t from_row, float* to,
                          std::int64_t to_row) {
    simd::run_with_avx512<SplitColumns>(rows, chunks, from, from_row, to, to_row);
}

// Numbers of a block that is read before it is split.
inline constexpr std::int64_t bf16x3_block = 8192;

constexpr std::int64_t bf16x3_chunks(std::int64_t k) {
    return (k + bf16x3_chunk - 1) / bf16x3_chunk;
}

/// Writes rows k0 … k0 + k - 1 of a right factor times `scale`, `columns` from `column` on, as SplitRows does. Zeros
/// fill what the factor does not have of the panels' columns and of whole chunks of rows.
inline void read_bf16x3(const MatrixOperand<float, Cpu>& from, std::int64_t k0, std::int64_t k, std::int64_t column,
                        std::int64_t columns, float scale, float* to, std::int64_t panel, std::int64_t to_panel) {
    const std::int64_t padded = (columns + panel - 1) / panel * panel;
    const bool by_rows = rows_are_contiguous(from);
    if (by_rows && from.values.data != nullptr && columns == padded) { // from where they lie
        split_rows(k, columns, from.values.data + k0 * from.values.row_stride + column, from.values.row_stride, scale,
                   to, panel, to_panel);
        return;
    }
    alignas(64) float block[bf16x3_block]; // not initialized
    const std::int64_t most_columns = by_rows ? std::max(panel, bf16x3_block / bf16x3_chunk / panel * panel) : panel;
    const std::int64_t most = bf16x3_block / most_columns / bf16x3_chunk * bf16x3_chunk;
    for (std::int64_t c = 0; c < padded; c += most_columns) {
        const std::int64_t width = std::min(most_columns, padded - c), filled = std::min(width, columns - c);
        if (filled < width) {
            std::fill_n(block, bf16x3_block, 0.0f);
        }
        for (std::int64_t i = 0; i < k; i += most) {
            const std::int64_t rows = std::min(most, k - i);
            read_block(from, k0 + i, rows, column + c, filled, block, width);
            split_rows(rows, width, block, width, scale,
                       to + i / bf16x3_chunk * 3 * pair_chunk * panel + c / panel * to_panel, panel, to_panel);
        }
    }
}

/// Writes k numbers from k0 on of `rows` rows of a left factor as SplitColumns does, to rows that are to_row numbers
/// apart. Zeros fill whole chunks.
inline void read_bf16x3_rows(const MatrixView<float>& from, std::int64_t row, std::int64_t rows, std::int64_t k0,
                             std::int64_t k, float* to, std::int64_t to_row) {
    const float* source = from.data + row * from.row_stride + k0 * from.column_stride;
    if (from.column_stride == 1 && k % bf16x3_chunk == 0) { // from where they lie
        split_columns(rows, k / bf16x3_chunk, source, from.row_stride, to, to_row);
        return;
    }
    constexpr std::int64_t most_rows = 16, most = bf16x3_block / most_rows;
    alignas(64) float block[bf16x3_block]; // not initialized
    for (std::int64_t r = 0; r < rows; r += most_rows) {
        const std::int64_t count = std::min(most_rows, rows - r);
        for (std::int64_t i = 0; i < k; i += most) {
            const std::int64_t there = std::min(most, k - i), chunks = bf16x3_chunks(there);
            read_block(from, row + r, count, k0 + i, there, block, most);
            for (std::int64_t j = 0; j < count; ++j) {
                std::fill(block + j * most + there, block + j * most + chunks * bf16x3_chunk, 0.0f);
            }
            split_columns(count, chunks, block, most, to + r * to_row + i / bf16x3_chunk * 3 * pair_chunk, to_row);
        }
    }
}

} // namespace lowrank::detail
