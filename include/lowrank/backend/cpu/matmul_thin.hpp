// Products of few columns or few rows on the host: packing one of the factors would take as long as multiplying.
#pragma once

#include <algorithm>
#include <cstdint>

#include "lowrank/backend/cpu/matmul_epilogue.hpp"
#include "lowrank/backend/cpu/matmul_tasks.hpp"
#include "lowrank/core/parallel.hpp"
#include "lowrank/core/storage.hpp"
#include "lowrank/simd/dispatch.hpp"

namespace lowrank::detail {

/// Some rows of a product of so few columns that B is one panel, packed by the caller: the left factor is read where it
/// lies, because packing it would take as long.
struct MultiplyNarrow {
    template <int Width, class T, class Out>
    LOWRANK_INLINE static void run(const MatmulTasks<T, Out>& problem, std::int64_t begin, std::int64_t end,
                                   const T* packed_b, std::int64_t b_stride) {
        constexpr int lanes = tile_lanes<T>(Width), panel = tile_vectors_of(Width) * lanes;
        constexpr int tile_rows = tile_rows_of(Width);
        const int width = static_cast<int>(problem.n);
        for (std::int64_t row = begin; row < end; row += tile_rows) {
            const std::int64_t count = std::min<std::int64_t>(tile_rows, end - row);
            T sums[tile_rows * panel];
            std::fill(sums, sums + count * panel, T(0));
            for (std::int64_t i = 0; problem.initial != nullptr && i < count; ++i) {
                std::copy_n(problem.initial + (row + i) * problem.n, width, sums + i * panel);
            }
            std::int64_t before = -problem.first; // as for_steps, whose lambda would lack this instruction set
            for (const MatmulSegment<T, Cpu>& segment : problem.segments) {
                const std::int64_t from = std::max<std::int64_t>(0, before);
                const std::int64_t to = std::min(problem.k, before + segment.k), stride = segment.a.row_stride;
                if (from < to) {
                    const T* a = segment.a.data + row * stride + (from - before);
                    multiply_columns<T, Width>(width, count, a, stride, 1, packed_b + from * b_stride, b_stride, sums,
                                               to - from, true);
                }
                before += segment.k;
            }
            finish_rows<lanes>(problem.epilogue, count, sums, panel, width, 0, row * problem.n, problem.n, problem.out);
        }
    }
};

/// A product of at most a panel's columns, with left factors of contiguous rows in the type of the sums.
template <class T, class Out>
void multiply_narrow(const MatmulTasks<T, Out>& problem) {
    const std::int64_t lanes = tile_lanes<T>(simd::width_of(simd::active_isa()));
    const std::int64_t b_stride = MatmulBlocks::pieces(problem.n, lanes) * lanes;
    auto memory = Storage<Cpu>::allocate(static_cast<std::size_t>(problem.k * b_stride) * sizeof(T));
    T* packed_b = static_cast<T*>(memory.mutable_data());
    problem.pack(0, problem.k, 0, problem.n, b_stride, packed_b);
    parallel_chunks(problem.m, 8 * problem.blocks.tile_rows, [&](std::int64_t begin, std::int64_t end) {
        simd::run_for_isa<MultiplyNarrow>(problem, begin, end, packed_b, b_stride);
    });
}

#if defined(__x86_64__)
/// Writes the results of `columns` columns, whose sums lie in columns: row by row in `sums` [columns, 32].
struct FinishColumns {
    template <int Width, class T, class Out>
    LOWRANK_INLINE static void run(const MatmulTasks<T, Out>& problem, std::int64_t column, std::int64_t columns,
                                   const float* sums) {
        for (std::int64_t r = 0; r < problem.m; ++r) {
            float row[amx_tile];
            for (std::int64_t c = 0; c < columns; ++c) {
                row[c] = sums[c * amx_tile + r];
            }
            finish_rows<Width>(problem.epilogue, 1, row, 0, static_cast<int>(columns), column, r * problem.n + column,
                               0, problem.out);
        }
    }
};

/// A product of at most 16 rows with right factors whose neighbours in k lie together, as AMX wants its left factor: so
/// the two change places, and nothing is rearranged. The sums are the same.
template <class Out>
void multiply_few(const MatmulTasks<bf16, Out>& problem) {
    constexpr std::int64_t rows = amx_tile / 2;
    const std::int64_t stride = pair_row(problem.k);
    auto memory = Storage<Cpu>::allocate(static_cast<std::size_t>(rows * (stride + problem.k)) * sizeof(float));
    float *packed = static_cast<float*>(memory.mutable_data()), *x = packed + rows * stride;
    pack_pairs(problem, stride, packed);
    copy_block(problem.m, problem.k, packed, stride, x, 1, rows);
    parallel_chunks(problem.n, 8 * amx_tile, [&](std::int64_t begin, std::int64_t end) {
        const AmxRegisters registers;
        auto scratch = Storage<Cpu>::allocate(static_cast<std::size_t>(amx_tile * (stride + amx_tile)) * sizeof(float));
        float *block = static_cast<float*>(scratch.mutable_data()), *sums = block + amx_tile * stride;
        for (std::int64_t column = begin; column < end; column += amx_tile) {
            const std::int64_t columns = std::min<std::int64_t>(amx_tile, end - column);
            problem.for_steps(0, problem.k,
                              [&](const auto& segment, std::int64_t k0, std::int64_t k, std::int64_t before) {
                                  const std::int64_t there = std::min(2 * k, segment.k - 2 * k0);
                                  auto* part = reinterpret_cast<bf16*>(block + before);
                                  read_columns(segment.b, 2 * k0, there, column, columns, part, 2 * stride);
                                  for (std::int64_t c = 0; c < columns; ++c) {
                                      std::fill(part + c * 2 * stride + there, part + c * 2 * stride + 2 * k, bf16());
                                      if (segment.scale != 1.0f) {
                                          scale_pairs(block + before + c * stride, k, segment.scale);
                                      }
                                  }
                              });
            multiply_amx_tile(columns, problem.m, block, stride, x, rows, sums, amx_tile, problem.k, false);
            simd::run_for_isa<FinishColumns>(problem, column, columns, static_cast<const float*>(sums));
        }
    });
}
#endif

} // namespace lowrank::detail
