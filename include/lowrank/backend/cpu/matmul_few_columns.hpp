// Products of few columns on the host: packing the left factor would take as long as multiplying.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>

#include "lowrank/backend/cpu/matmul_epilogue.hpp"
#include "lowrank/backend/cpu/matmul_tasks.hpp"
#include "lowrank/core/parallel.hpp"
#include "lowrank/core/storage.hpp"
#include "lowrank/simd/dispatch.hpp"

namespace lowrank::detail {

/// Whether a product has at most a panel's columns, and left factors of contiguous rows in the type of the sums.
template <class T>
bool is_narrow(std::int64_t n, std::span<const MatmulSegment<T, Cpu>> segments) {
    return std::same_as<T, compute_t<T>> && n <= MatmulTile::of_values<compute_t<T>>(simd::active_isa()).columns &&
           std::all_of(segments.begin(), segments.end(), [](const auto& s) { return s.a.column_stride == 1; });
}

/// Rows of a left factor, `stride` apart, by a panel of few columns.
struct MultiplyRows {
    template <int Width, class C>
    LOWRANK_INLINE static void run(int columns, std::int64_t rows, const C* a, std::int64_t stride, const C* b,
                                   std::int64_t b_row, C* c, std::int64_t k) {
        multiply_columns<C, Width>(columns, rows, a, stride, 1, b, b_row, c, k, true);
    }
};

/// The sums of some rows of a product of so few columns that B is one panel, packed by the caller: the left factor is
/// read where it lies, because packing it would take as long. Rows of sums are a panel apart.
template <class T, class Out>
void multiply_narrow_rows(const MatmulTasks<T, Out>& problem, std::int64_t begin, std::int64_t end, const T* packed_b,
                          std::int64_t b_stride, T* sums) {
    const std::int64_t tile_rows = problem.blocks.tile_rows, panel = problem.blocks.panel;
    for (std::int64_t row = begin; row < end; row += tile_rows, sums += tile_rows * panel) {
        const std::int64_t count = std::min(tile_rows, end - row);
        std::fill(sums, sums + count * panel, T(0));
        problem.for_steps(0, problem.k, [&](const auto& segment, std::int64_t k0, std::int64_t k, std::int64_t before) {
            const std::int64_t stride = segment.a.row_stride;
            simd::run_for_isa<MultiplyRows>(static_cast<int>(problem.n), count, segment.a.data + row * stride + k0,
                                            stride, packed_b + before * b_stride, b_stride, sums, k);
        });
    }
}

/// A product that is narrow, with the tile of values.
template <class T, class Out>
void multiply_narrow(const MatmulTasks<T, Out>& problem) {
    const std::int64_t lanes = tile_lanes<T>(simd::width_of(simd::active_isa()));
    const std::int64_t b_stride = MatmulBlocks::pieces(problem.n, lanes) * lanes;
    auto memory = Storage<Cpu>::allocate(static_cast<std::size_t>(problem.k * b_stride) * sizeof(T));
    T* packed_b = static_cast<T*>(memory.mutable_data());
    problem.pack(0, problem.k, 0, problem.n, b_stride, packed_b);
    const std::int64_t panel = problem.blocks.panel, rows = 8 * problem.blocks.tile_rows;
    parallel_chunks(problem.m, rows, [&](std::int64_t begin, std::int64_t end) {
        auto scratch = Storage<Cpu>::allocate(static_cast<std::size_t>(rows * panel) * sizeof(T));
        T* sums = static_cast<T*>(scratch.mutable_data());
        multiply_narrow_rows(problem, begin, end, packed_b, b_stride, sums);
        finish_sums(problem.epilogue, end - begin, sums, panel, static_cast<int>(problem.n), 0, begin * problem.n,
                    problem.n, problem.out);
    });
}

} // namespace lowrank::detail
