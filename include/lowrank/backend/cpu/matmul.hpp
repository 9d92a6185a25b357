// The matmul engine of the host: blocks of rows times groups of packed panels, in parallel, with a fused epilogue.
// The blocking follows Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "lowrank/backend/cpu/matmul_epilogue.hpp"
#include "lowrank/backend/cpu/matmul_tile.hpp"
#include "lowrank/backend/cpu/matrix_operand.hpp"
#include "lowrank/core/parallel.hpp"
#include "lowrank/core/storage.hpp"
#include "lowrank/simd/dispatch.hpp"

namespace lowrank {
namespace detail {

/// How a product is cut into blocks, for registers of `width` floats. In elements; the sizes keep a block of A and a
/// group of panels of B in the second-level cache. All row counts are multiples of the tile's rows. The order in which
/// an element's products are summed does not depend on them.
struct MatmulBlocks {
    int width, lanes, tile_rows;
    std::int64_t panel = 2 * lanes;                         // columns of a panel of B
    std::int64_t group = 4 * panel;                         // columns of a task
    std::int64_t rows = 0;                                  // rows of a task
    std::int64_t cached_rows = 224 / tile_rows * tile_rows; // rows of A that meet a group before the next rows
    bool by_rows = false;                                   // B's rows are read in long runs, a few at a time
    static constexpr std::int64_t k = 256;                  // steps of k between visits of the sums
    static constexpr std::int64_t rows_at_once = 8;         // likewise, by rows

    /// For a product of m rows and n columns. About 512 rows are a task, and all tasks get nearly as many, because each
    /// packs its panels. A single strip of rows waits for the memory that B lies in: there B is read in its own order.
    template <class C>
    static MatmulBlocks of(int width, std::int64_t m, std::int64_t n, bool b_has_contiguous_rows) {
        MatmulBlocks blocks{.width = width, .lanes = tile_lanes<C>(width), .tile_rows = tile_rows_of(width)};
        const std::int64_t strips = (m + blocks.tile_rows - 1) / blocks.tile_rows;
        const std::int64_t tasks = std::max<std::int64_t>(1, (m + 256) / 512);
        blocks.rows = (strips + tasks - 1) / tasks * blocks.tile_rows;
        if (strips == 1 && b_has_contiguous_rows) {
            constexpr std::int64_t most = 24; // panels; their rows then do not meet in the sets of the cache
            const std::int64_t panels = (n + blocks.panel - 1) / blocks.panel, shares = 2 * num_threads();
            blocks.by_rows = true;
            blocks.group = std::clamp<std::int64_t>((panels + shares - 1) / shares, 1, most) * blocks.panel;
        }
        return blocks;
    }

    /// Whether this factor is read by rows.
    template <class T>
    bool reads_rows(const MatrixOperand<T, Cpu>& b) const {
        return by_rows && rows_are_contiguous(b);
    }
};

/// A product whose left factor is packed: all that its tasks share.
template <class T, class Out>
struct MatmulTasks {
    using C = compute_t<T>;
    std::int64_t m, n;
    std::span<const MatmulSegment<T, Cpu>> segments;
    MatmulBlocks blocks;
    const C* packed_a; // per segment: strips of tile-rows rows, each k × tile-rows
    Out* out;          // [m, n], row-major
    MatmulEpilogue<T, Out> epilogue;
};

/// The sums of one task: a block of rows by a group of panels, over all of k.
struct MultiplyBlock {
    template <int Width, class T, class Out>
    [[gnu::always_inline]] static inline void run(const MatmulTasks<T, Out>& problem, std::int64_t row0,
                                                  std::int64_t column0, compute_t<T>* sums, compute_t<T>* packed_b) {
        using C = compute_t<T>;
        constexpr int lanes = tile_lanes<C>(Width), tile_rows = tile_rows_of(Width), panel = 2 * lanes;
        const MatmulBlocks& blocks = problem.blocks;
        const std::int64_t rows = std::min(blocks.rows, problem.m - row0);
        const std::int64_t columns = std::min(blocks.group, problem.n - column0);
        const C* packed_a = problem.packed_a;
        bool accumulate = false;
        for (const MatmulSegment<T, Cpu>& segment : problem.segments) {
            // A block of B lies in panels one after the other, or as rows of the whole group.
            const bool by_rows = blocks.reads_rows(segment.b);
            const std::int64_t k_block = by_rows ? blocks.rows_at_once : blocks.k;
            const std::int64_t b_stride = by_rows ? blocks.group : panel, to_panel = by_rows ? 1 : blocks.k;
            for (std::int64_t k0 = 0; k0 < segment.k; k0 += k_block) {
                const std::int64_t k = std::min(k_block, segment.k - k0);
                const std::int64_t step = by_rows ? columns : panel;
                for (std::int64_t p = 0; p < columns; p += step) {
                    pack(segment, k0, k, column0 + p, std::min(step, columns - p), b_stride, packed_b + p * to_panel);
                }
                for (std::int64_t r0 = 0; r0 < rows; r0 += blocks.cached_rows) {
                    const std::int64_t end = std::min(rows, r0 + blocks.cached_rows);
                    for (std::int64_t p = 0; p < columns; p += panel) {
                        const C* b = packed_b + p * to_panel;
                        for (std::int64_t r = r0; r < end; r += tile_rows) {
                            const C* a = packed_a + (row0 + r) * segment.k + k0 * tile_rows;
                            C* c = sums + p * rows + r * panel;
                            const std::int64_t count = std::min<std::int64_t>(tile_rows, end - r);
                            if (columns - p <= lanes) {
                                multiply_strip<C, Width, 1>(count, a, b, b_stride, c, k, accumulate);
                            } else {
                                multiply_strip<C, Width, 2>(count, a, b, b_stride, c, k, accumulate);
                            }
                        }
                    }
                }
                accumulate = true;
            }
            packed_a += (problem.m + tile_rows - 1) / tile_rows * tile_rows * segment.k;
        }
        for (std::int64_t p = 0; p < columns; p += panel) {
            const int width = static_cast<int>(std::min<std::int64_t>(panel, columns - p));
            for (std::int64_t r = 0; r < rows; ++r) {
                C* row = sums + p * rows + r * panel;
                if (!accumulate) { // no k at all: the empty sum
                    std::fill(row, row + panel, C(0));
                }
                finish_row<lanes>(problem.epilogue, row, width, column0 + p, (row0 + r) * problem.n + column0 + p,
                                  problem.out);
            }
        }
    }

  private:
    template <class T, class C>
    static void pack(const MatmulSegment<T, Cpu>& segment, std::int64_t k0, std::int64_t k, std::int64_t column,
                     std::int64_t columns, std::int64_t stride, C* target) {
        if (columns < stride) {
            std::fill(target, target + k * stride, C(0));
        }
        read_block(segment.b, k0, k, column, columns, target, stride);
        if (segment.scale != C(1)) {
            for (std::int64_t i = 0; i < k * stride; ++i) {
                target[i] *= segment.scale;
            }
        }
    }
};

/// Packs the rows of the left factors into strips: within a strip, the rows' values of one step of k lie together.
template <class T>
void pack_strips(std::span<const MatmulSegment<T, Cpu>> segments, std::int64_t m, std::int64_t tile_rows,
                 compute_t<T>* target) {
    const std::int64_t strips = (m + tile_rows - 1) / tile_rows;
    for (const MatmulSegment<T, Cpu>& segment : segments) {
        const std::int64_t grain =
            std::max<std::int64_t>(1, 65536 / (tile_rows * std::max<std::int64_t>(segment.k, 1)));
        parallel_chunks(strips, grain, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t strip = begin; strip < end; ++strip) {
                const std::int64_t row = strip * tile_rows;
                read_block(segment.a.transposed(), 0, segment.k, row, std::min(tile_rows, m - row),
                           target + row * segment.k, tile_rows);
            }
        });
        target += strips * tile_rows * segment.k;
    }
}

} // namespace detail

/// out [m, n] = epilogue(Σ scale · A · B) over the segments, computed in compute_t<T>. `out` is row-major, of type T or
/// compute_t<T>. The result does not depend on the number of threads.
template <class T, class Out>
void matmul(Cpu, std::int64_t m, std::int64_t n, std::span<const MatmulSegment<T, Cpu>> segments, Out* out,
            const MatmulEpilogue<T, Out>& epilogue) {
    using C = compute_t<T>;
    if (m == 0 || n == 0) {
        return;
    }
    const auto blocks = detail::MatmulBlocks::of<C>(
        simd::width_of(simd::active_isa()), m, n, !segments.empty() && detail::rows_are_contiguous(segments.front().b));
    std::int64_t k = 0, packed_k = 0; // in all, and of a block of B at most
    for (const MatmulSegment<T, Cpu>& segment : segments) {
        k += segment.k;
        packed_k = std::max(packed_k, blocks.reads_rows(segment.b) ? blocks.rows_at_once : blocks.k);
    }
    const std::int64_t padded = (m + blocks.tile_rows - 1) / blocks.tile_rows * blocks.tile_rows;
    auto memory = Storage<Cpu>::allocate(static_cast<std::size_t>(padded * k) * sizeof(C));
    C* packed_a = static_cast<C*>(memory.mutable_data());
    detail::pack_strips(segments, m, blocks.tile_rows, packed_a);
    const detail::MatmulTasks<T, Out> problem{m, n, segments, blocks, packed_a, out, epilogue};
    const std::int64_t row_blocks = (m + blocks.rows - 1) / blocks.rows, groups = (n + blocks.group - 1) / blocks.group;
    parallel_for(row_blocks * groups, [&](std::int64_t task) {
        const std::int64_t row0 = task % row_blocks * blocks.rows, column0 = task / row_blocks * blocks.group;
        const std::int64_t rows = std::min(blocks.rows, m - row0);
        auto scratch = Storage<Cpu>::allocate(static_cast<std::size_t>((rows + packed_k) * blocks.group) * sizeof(C));
        C* sums = static_cast<C*>(scratch.mutable_data());
        simd::run_for_isa<detail::MultiplyBlock>(problem, row0, column0, sums, sums + rows * blocks.group);
    });
}

} // namespace lowrank
