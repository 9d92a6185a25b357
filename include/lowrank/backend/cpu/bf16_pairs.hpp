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

/// to[i, c] = (from[2i, c], from[2i + 1, c]) for i < pairs: the even one in the lower half. `columns` is a multiple of
/// the width, and the rows of both are contiguous.
struct PairRows {
    template <int Width>
    LOWRANK_INLINE static void run(std::int64_t pairs, std::int64_t columns, const bf16* from, float* to) {
        using V = simd::Vec<float, Width>;
        using naturals = typename V::naturals;
        for (std::int64_t i = 0; i < pairs; ++i, from += 2 * columns, to += columns) {
            for (std::int64_t c = 0; c < columns; c += V::size) {
                const auto even = (naturals)simd::detail::load_halves<Width>(from + c).v;
                const auto odd = (naturals)simd::detail::load_halves<Width>(from + columns + c).v;
                simd::store(V::from_bits(even | odd << 16), to + c);
            }
        }
    }
};

/// Writes rows k0 … k0 + k - 1 of a right factor, `columns` from `column` on, as pairs of rows: `stride` pairs to each
/// of to's rows, of which there are whole chunks. Zeros fill what the factor does not have. `stride` is a multiple of
/// the width.
template <class T>
void read_pairs(const MatrixOperand<T, Cpu>& from, std::int64_t k0, std::int64_t k, std::int64_t column,
                std::int64_t columns, float* to, std::int64_t stride) {
    constexpr std::int64_t size = 8192;
    alignas(64) std::uint16_t memory[size]; // not initialized
    auto* block = reinterpret_cast<bf16*>(memory);
    if (rows_are_contiguous(from)) {
        const std::int64_t most = std::max<std::int64_t>(2, size / stride / 2 * 2);
        if (columns < stride) {
            std::fill_n(block, size, bf16());
        }
        const std::int64_t end = (k + 2 * pair_chunk - 1) / (2 * pair_chunk) * (2 * pair_chunk);
        for (std::int64_t i = 0; i < end; i += most) {
            const std::int64_t rows = std::min(most, end - i), there = std::clamp<std::int64_t>(k - i, 0, rows);
            read_block(from, k0 + i, there, column, columns, block, stride);
            std::fill(block + there * stride, block + rows * stride, bf16());
            simd::run_for_isa<PairRows>(rows / 2, stride, block, to + i / 2 * stride);
        }
        return;
    }
    // In the order of memory, neighbours in k are pairs already: what remains is to transpose numbers of 32 bits.
    constexpr std::int64_t steps = 2 * pair_chunk, few = size / steps;
    for (std::int64_t i = 0; i < k; i += steps) {
        const std::int64_t there = std::min(steps, k - i);
        for (std::int64_t c = 0; c < columns; c += few) {
            const std::int64_t count = std::min(few, columns - c);
            if (there < steps) {
                std::fill_n(block, size, bf16());
            }
            read_columns(from, k0 + i, there, column + c, count, block, steps);
            copy_block(count, pair_chunk, reinterpret_cast<const float*>(block), pair_chunk, to + i / 2 * stride + c, 1,
                       stride);
        }
        if (columns < stride) {
            for (std::int64_t r = 0; r < pair_chunk; ++r) {
                std::fill(to + (i / 2 + r) * stride + columns, to + (i / 2 + r + 1) * stride, 0.0f);
            }
        }
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
