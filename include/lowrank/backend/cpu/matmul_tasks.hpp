// What the tasks of a product on the host share, and how they pack its factors.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>

#include "lowrank/backend/cpu/bf16_pairs.hpp"
#include "lowrank/backend/cpu/bf16x3.hpp"
#include "lowrank/backend/cpu/matmul_blocks.hpp"
#include "lowrank/backend/cpu/matrix_operand.hpp"
#include "lowrank/core/parallel.hpp"
#include "lowrank/tensor/matmul_problem.hpp"

namespace lowrank::detail {

/// A packed left factor. Values lie in strips of as many rows as the tile has, in which the rows' values of one step of
/// k are neighbours; and the strips of a block of k lie together, so that reading one strip after the other is reading
/// on. Pairs lie in rows over all of k, as AMX reads them.
template <class C>
struct PackedRows {
    const C* values = nullptr;
    std::int64_t row = 0, step = 0; // of pairs: distances of rows and of steps of k
    std::int64_t rows = 0;          // of a block of k, with those that fill the last strip; 0 where rows are whole

    /// From row r on, the first of a strip, and step k0, the first of a block of k steps.
    const C* from(std::int64_t r, std::int64_t k0, std::int64_t k) const {
        return rows == 0 ? values + r * row + k0 * step : values + k0 * rows + r * k;
    }
};

/// A product whose left factor is packed: all that its tasks share.
template <class T, class Out>
struct MatmulTasks {
    using C = compute_t<T>;
    std::int64_t m, n;
    std::int64_t first, k; // steps first … first + k - 1 of all segments one after the other
    std::span<const MatmulSegment<T, Cpu>> segments;
    MatmulTile tile;
    MatmulBlocks blocks;
    PackedRows<C> a;
    Out* out; // [m, n], row-major
    MatmulEpilogue<T, Out> epilogue;

    /// Calls visit(segment, first step of its own, steps, steps before these) for the parts of `count` steps, k0 after
    /// the first.
    template <class Visit>
    void for_steps(std::int64_t k0, std::int64_t count, const Visit& visit) const {
        std::int64_t begin = -first;
        for (const MatmulSegment<T, Cpu>& segment : segments) {
            const std::int64_t steps = tile.steps_of(segment.k);
            const std::int64_t from = std::max(k0, begin), to = std::min(k0 + count, begin + steps);
            if (from < to) {
                visit(segment, from - begin, to - from, from - k0);
            }
            begin += steps;
        }
    }

    /// Packs steps k0 … k0 + count - 1 of B, `columns` from `column` on, into panels of `panel` columns, one after the
    /// other.
    void pack(std::int64_t k0, std::int64_t count, std::int64_t column, std::int64_t columns, std::int64_t panel,
              C* target) const {
        const std::int64_t panels = MatmulBlocks::pieces(columns, panel);
        for_steps(k0, count, [&](const auto& segment, std::int64_t row, std::int64_t rows, std::int64_t before) {
            C* part = target + before * tile.parts() * panel;
            if constexpr (std::same_as<T, float>) {
                if (tile.kind == Packed::bf16x3) {
                    read_bf16x3(segment.b, 2 * row, std::min(2 * rows, segment.k - 2 * row), column, columns,
                                segment.scale, part, panel, count * tile.parts() * panel);
                    return;
                }
            }
            if constexpr (std::same_as<T, bf16>) {
                if (tile.kind == Packed::bf16_pairs) {
                    read_pairs(segment.b, 2 * row, std::min(2 * rows, segment.k - 2 * row), column, columns, part,
                               panel, count * panel);
                    for (std::int64_t p = 0; p < panels && segment.scale != 1.0f; ++p) {
                        scale_pairs(part + p * count * panel, rows * panel, segment.scale);
                    }
                    return;
                }
            }
            C* last = part + (panels - 1) * count * panel;
            if (columns < panels * panel) {
                std::fill(last, last + rows * panel, C(0));
            }
            read_panels(segment.b, row, rows, column, columns, part, panel, count * panel);
            for (; part <= last && segment.scale != C(1); part += count * panel) {
                std::transform(part, part + rows * panel, part, [&](C x) { return x * segment.scale; });
            }
        });
    }

    /// Asks the caches for steps of B that will be packed soon.
    void prefetch(std::int64_t k0, std::int64_t count, std::int64_t column, std::int64_t columns) const {
        for_steps(k0, count, [&](const auto& segment, std::int64_t row, std::int64_t rows, std::int64_t) {
            const std::int64_t first_row = tile.numbers_of(row);
            prefetch_block(segment.b, first_row, std::min(tile.numbers_of(rows), segment.k - first_row), column,
                           columns);
        });
    }
};

/// Packs the rows of the left factors as values, block by block of k and in strips.
template <class T, class Out>
void pack_strips(const MatmulTasks<T, Out>& problem, compute_t<T>* target) {
    using C = compute_t<T>;
    const std::int64_t tile_rows = problem.blocks.tile_rows, strips = MatmulBlocks::pieces(problem.m, tile_rows);
    const std::int64_t grain = std::max<std::int64_t>(1, 65536 / (tile_rows * std::max<std::int64_t>(problem.k, 1)));
    parallel_chunks(strips, grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t strip = begin; strip < end; ++strip) {
            const std::int64_t row = strip * tile_rows, rows = std::min(tile_rows, problem.m - row);
            for (std::int64_t block = 0; block < problem.k; block += problem.blocks.k) {
                const std::int64_t steps = std::min(problem.blocks.k, problem.k - block);
                C* part = target + block * strips * tile_rows + row * steps;
                problem.for_steps(
                    block, steps, [&](const auto& segment, std::int64_t k0, std::int64_t k, std::int64_t before) {
                        read_block(segment.a.transposed(), k0, k, row, rows, part + before * tile_rows, tile_rows);
                    });
            }
        }
    });
}

/// Packs the rows of the left factors as pairs, `stride` numbers to a row.
template <class T, class Out>
void pack_pairs(const MatmulTasks<T, Out>& problem, std::int64_t stride, float* target) {
    const std::int64_t grain = std::max<std::int64_t>(1, 65536 / stride);
    parallel_chunks(problem.m, grain, [&](std::int64_t begin, std::int64_t end) {
        problem.for_steps(0, problem.k, [&](const auto& segment, std::int64_t k0, std::int64_t k, std::int64_t before) {
            const std::int64_t there = std::min(2 * k, segment.k - 2 * k0);
            float* numbers = target + begin * stride + before * problem.tile.parts();
            if constexpr (std::same_as<T, float>) {
                read_bf16x3_rows(segment.a, begin, end - begin, 2 * k0, there, numbers, stride);
            } else {
                auto* part = reinterpret_cast<bf16*>(numbers);
                read_block(segment.a, begin, end - begin, 2 * k0, there, part, 2 * stride);
                for (std::int64_t r = 0; r < end - begin; ++r) {
                    std::fill(part + r * 2 * stride + there, part + r * 2 * stride + 2 * k, bf16());
                }
            }
        });
    });
}

} // namespace lowrank::detail
