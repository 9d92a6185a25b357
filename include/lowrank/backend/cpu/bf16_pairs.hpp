// Packing bf16 factors for the processor's bf16 products, which take two neighbours in k as one number of 32 bits.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "lowrank/backend/cpu/matrix_operand.hpp"
#include "lowrank/simd/dispatch.hpp"
#include "lowrank/simd/memory.hpp"

namespace lowrank::detail {

/// Pairs that a register of AMX holds in a row. Packed factors have whole chunks of so many, with zeros at the end.
inline constexpr std::int64_t pair_chunk = 16;

/// The distance of packed rows of `pairs` pairs: an odd number of cache lines, so that a tile's rows do not compete for
/// the same sets of the cache.
constexpr std::int64_t pair_row(std::int64_t pairs) {
    return (pairs / pair_chunk | 1) * pair_chunk;
}

/// to[i, c] = (from[2i, c], from[2i + 1, c]) for i < pairs: the even one in the lower half. Columns are cut into
/// panels: to[i, c] lies in panel c / panel at row i. `columns` is a multiple of the width, and a panel too.
struct PairRows {
    template <int Width>
    LOWRANK_INLINE static void run(std::int64_t pairs, std::int64_t columns, const bf16* from, std::int64_t from_row,
                                   float* to, std::int64_t panel, std::int64_t to_panel) {
        using V = simd::Vec<float, Width>;
        using naturals = typename V::naturals;
        constexpr std::int64_t ahead = 4; // pairs
        for (std::int64_t i = 0; i < pairs; ++i, from += 2 * from_row, to += panel) {
            prefetch_rows<3>(from + 2 * ahead * from_row, i + ahead < pairs ? 2 : 0, columns, from_row);
            float* target = to;
            for (std::int64_t p = 0; p < columns; p += panel, target += to_panel) {
                const std::int64_t end = std::min(panel, columns - p);
                for (std::int64_t c = 0; c < end; c += V::size) {
                    const auto even = (naturals)simd::detail::load_halves<Width>(from + p + c).v;
                    const auto odd = (naturals)simd::detail::load_halves<Width>(from + from_row + p + c).v;
                    simd::store(V::from_bits(even | odd << 16), target + c);
                }
            }
        }
    }
};

// Numbers of a block that is read before it is paired; and rows of a chunk of pairs.
inline constexpr std::int64_t pair_block = 8192, pair_steps = 2 * pair_chunk;

/// read_pairs for a factor whose rows are contiguous: two rows are shuffled into one.
template <class T>
void pair_rows(const MatrixOperand<T, Cpu>& from, std::int64_t k0, std::int64_t k, std::int64_t column,
               std::int64_t columns, float* to, std::int64_t panel, std::int64_t to_panel) {
    const std::int64_t padded = (columns + panel - 1) / panel * panel;
    const std::int64_t end = (k + pair_steps - 1) / pair_steps * pair_steps;
    const MatrixView<T>& values = from.values;
    std::int64_t done = 0;
    if (values.data != nullptr && columns == padded) { // from where they lie
        done = k / 2 * 2;
        simd::run_for_isa<PairRows>(done / 2, columns, values.data + k0 * values.row_stride + column, values.row_stride,
                                    to, panel, to_panel);
    }
    alignas(64) std::uint16_t memory[pair_block]; // not initialized
    auto* block = reinterpret_cast<bf16*>(memory);
    const std::int64_t most_columns = std::max(panel, pair_block / pair_steps / panel * panel);
    for (std::int64_t c = 0; c < padded && done < end; c += most_columns) {
        const std::int64_t width = std::min(most_columns, padded - c), filled = std::min(width, columns - c);
        const std::int64_t most = std::max<std::int64_t>(2, pair_block / width / 2 * 2);
        if (filled < width) {
            std::fill_n(block, pair_block, bf16());
        }
        for (std::int64_t i = done; i < end; i += most) {
            const std::int64_t rows = std::min(most, end - i), there = std::clamp<std::int64_t>(k - i, 0, rows);
            read_block(from, k0 + i, there, column + c, filled, block, width);
            std::fill(block + there * width, block + rows * width, bf16());
            simd::run_for_isa<PairRows>(rows / 2, width, static_cast<const bf16*>(block), width,
                                        to + i / 2 * panel + c / panel * to_panel, panel, to_panel);
        }
    }
}

/// read_pairs for a factor whose columns are contiguous: neighbours in k are pairs already, and what remains is to
/// transpose numbers of 32 bits.
template <class T>
void pair_columns(const MatrixOperand<T, Cpu>& from, std::int64_t k0, std::int64_t k, std::int64_t column,
                  std::int64_t columns, float* to, std::int64_t panel, std::int64_t to_panel) {
    const std::int64_t end = (k + pair_steps - 1) / pair_steps * pair_steps;
    const MatrixView<T>& values = from.values;
    alignas(64) std::uint16_t memory[pair_block]; // not initialized
    auto* block = reinterpret_cast<bf16*>(memory);
    for (std::int64_t c = 0; c < columns; c += panel, to += to_panel) {
        const std::int64_t count = std::min(panel, columns - c);
        const T* source = values.data == nullptr ? nullptr : values.data + (column + c) * values.column_stride + k0;
        std::int64_t i = 0;
        if (source != nullptr && values.row_stride == 1 && values.column_stride % 2 == 0 &&
            reinterpret_cast<std::uintptr_t>(source) % alignof(float) == 0) {
            i = k / pair_steps * pair_steps;
            copy_block(count, i / 2, reinterpret_cast<const float*>(source), values.column_stride / 2, to, 1, panel);
        }
        const std::int64_t most = pair_block / panel / pair_steps * pair_steps;
        for (; i < k; i += most) {
            const std::int64_t there = std::min(most, k - i), chunks = std::min(most, end - i);
            if (there < chunks) {
                std::fill_n(block, pair_block, bf16());
            }
            read_columns(from, k0 + i, there, column + c, count, block, chunks);
            copy_block(count, chunks / 2, reinterpret_cast<const float*>(block), chunks / 2, to + i / 2 * panel, 1,
                       panel);
        }
        for (std::int64_t r = 0; r < end / 2 && count < panel; ++r) {
            std::fill(to + r * panel + count, to + (r + 1) * panel, 0.0f);
        }
    }
}

/// Writes rows k0 … k0 + k - 1 of a right factor, `columns` from `column` on, as pairs of rows, in panels of `panel`
/// columns that are to_panel numbers apart. Zeros fill what the factor does not have of the panels' columns and of
/// whole chunks of rows. `panel` is a multiple of the width, and k0 is even.
template <class T>
void read_pairs(const MatrixOperand<T, Cpu>& from, std::int64_t k0, std::int64_t k, std::int64_t column,
                std::int64_t columns, float* to, std::int64_t panel, std::int64_t to_panel) {
    if (rows_are_contiguous(from)) {
        pair_rows(from, k0, k, column, columns, to, panel, to_panel);
    } else {
        pair_columns(from, k0, k, column, columns, to, panel, to_panel);
    }
}

/// Multiplies packed pairs by a number and rounds.
inline void scale_pairs(float* pairs, std::int64_t count, float scale) {
    auto* bytes = reinterpret_cast<std::byte*>(pairs);
    for (std::int64_t i = 0; i < 2 * count; ++i, bytes += sizeof(bf16)) {
        bf16 value;
        std::memcpy(&value, bytes, sizeof value);
        value = bf16(float(value) * scale);
        std::memcpy(bytes, &value, sizeof value);
    }
}

} // namespace lowrank::detail
