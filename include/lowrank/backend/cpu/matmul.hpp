// The matmul engine of the host: blocks of rows times groups of packed panels, in parallel, with a fused epilogue.
// The blocking follows Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "lowrank/backend/cpu/matmul_amx.hpp"
#include "lowrank/backend/cpu/matmul_epilogue.hpp"
#include "lowrank/backend/cpu/matmul_few_columns.hpp"
#include "lowrank/backend/cpu/matmul_few_rows.hpp"
#include "lowrank/backend/cpu/matmul_tasks.hpp"
#include "lowrank/backend/cpu/matmul_tile.hpp"
#include "lowrank/core/parallel.hpp"
#include "lowrank/core/storage.hpp"
#include "lowrank/simd/dispatch.hpp"

namespace lowrank {
namespace detail {

/// The block of B that is packed next. On AVX-512 and AMX it is fetched into the cache a little before each of `tiles`
/// tiles; with narrower vectors the instructions that this takes cost more than it saves.
template <class T, class Out>
class BlockAhead {
  public:
    BlockAhead(const MatmulTasks<T, Out>& problem, std::int64_t k0, std::int64_t column, std::int64_t tiles)
        : problem_(problem),
          k_(k0),
          end_(column < problem.n ? std::min(k0 + problem.blocks.k, problem.k) : k0),
          step_(MatmulBlocks::pieces(end_ - k0, tiles)),
          column_(column),
          columns_(std::min(problem.blocks.group, problem.n - column)) {}

    void fetch() {
        if (k_ < end_) {
            const std::int64_t steps = std::min(step_, end_ - k_);
            problem_.prefetch(k_, steps, column_, columns_);
            k_ += steps;
        }
    }

  private:
    const MatmulTasks<T, Out>& problem_;
    std::int64_t k_, end_, step_, column_, columns_;
};

/// The rows of the result that a block's sums will be written to, which the tiles of AVX-512 and AMX ask the caches for
/// while they multiply: written all at once, they would be waited for.
template <class Out>
class ResultAhead {
  public:
    /// `rows` rows of `columns` values that are `row` values apart, asked for by `tiles` calls.
    ResultAhead(const Out* out, std::int64_t row, std::int64_t rows, std::int64_t columns, std::int64_t tiles)
        : line_(out),
          row_(row),
          lines_(MatmulBlocks::pieces(columns, per_line)),
          left_(rows * lines_),
          step_(MatmulBlocks::pieces(left_, tiles)) {}

    void fetch() {
        for (const std::int64_t end = std::max<std::int64_t>(0, left_ - step_); left_ > end; --left_) {
            __builtin_prefetch(line_, 1, 2);
            ++in_row_;
            line_ += per_line;
            if (in_row_ == lines_) {
                line_ += row_ - lines_ * per_line;
                in_row_ = 0;
            }
        }
    }

  private:
    static constexpr auto per_line = static_cast<std::int64_t>(64 / sizeof(Out));
    const Out* line_;
    std::int64_t row_, lines_, left_, step_, in_row_ = 0;
};

/// A panel of a block of B and what its products are about: rows from `row` on and steps from k0 on. The sums of a
/// strip are c_strip behind those of the strip before.
template <class C>
struct PanelOfBlock {
    const C* values;
    const C* next; // the panel behind it, or null
    std::int64_t row, rows, column, k0, k;
    int width; // columns
    C* c;
    std::int64_t c_strip;
    bool is_last; // the sums are complete then
};

/// All strips of rows by one panel. Here an instruction set is chosen: seldom, and for little code.
struct MultiplyPanel {
    template <int Width, class T, class Out, class C>
    LOWRANK_INLINE static void run(const MatmulTasks<T, Out>& problem, const PanelOfBlock<C>& of,
                                   [[maybe_unused]] BlockAhead<T, Out>& block_ahead,
                                   [[maybe_unused]] ResultAhead<Out>& result_ahead) {
        const std::int64_t tile_rows = problem.blocks.tile_rows, strips = MatmulBlocks::pieces(of.rows, tile_rows);
        C* c = of.c;
        for (std::int64_t strip = 0; strip < strips; ++strip, c += of.c_strip) {
            const std::int64_t row = of.row + strip * tile_rows;
            const std::int64_t count = std::min<std::int64_t>(tile_rows, of.row + of.rows - row);
            if constexpr (Width == 16) {
                block_ahead.fetch();
                result_ahead.fetch();
            } else if (of.is_last) { // its lines arrive while it multiplies
                prefetch_rows<3>(problem.out + row * problem.n + of.column, count, of.width, problem.n);
            }
            multiply<Width>(problem, of, strip, strips, count, problem.a.from(row, of.k0, of.k), c);
            if (of.is_last) {
                finish_sums(problem.epilogue, count, c, problem.blocks.panel, of.width, of.column,
                            row * problem.n + of.column, problem.n, problem.out);
            }
        }
    }

  private:
    template <int Width, class T, class Out, class C>
    LOWRANK_INLINE static void multiply(const MatmulTasks<T, Out>& problem, const PanelOfBlock<C>& of,
                                        [[maybe_unused]] std::int64_t strip, [[maybe_unused]] std::int64_t strips,
                                        std::int64_t count, const C* a, C* c) {
        const std::int64_t panel = problem.blocks.panel;
        const bool adds = of.k0 != 0;
#if defined(__x86_64__)
        if constexpr (std::same_as<C, float> && Width == 16) {
            if (problem.tile.is_amx) {
                constexpr int parts = std::same_as<T, float> ? 3 : 1;
                AmxAhead ahead; // of the next panel each strip fetches its share; of one part it is in the first level
                if (parts == 3 && of.next != nullptr) {
                    ahead.lines = MatmulBlocks::pieces(panel * parts, strips); // a line is 16 steps of a column
                    ahead.next = of.next + strip * ahead.lines * of.k;
                }
                multiply_amx_tile<parts>(count, of.width, a, problem.a.row, of.values, panel, c, panel, of.k, adds,
                                         ahead);
                return;
            }
        }
        if constexpr (std::same_as<T, bf16> && Width == 16) {
            if (problem.tile.kind == Packed::bf16_pairs) {
                multiply_columns<C, Width, Packed::bf16_pairs>(of.width, count, a, problem.a.row, problem.a.step,
                                                               of.values, panel, c, of.k, adds);
                return;
            }
        }
#endif
        multiply_columns<C, Width>(of.width, count, a, 1, tile_rows_of(Width), of.values, panel, c, of.k, adds);
    }
};

/// One task: a block of rows by a group of panels, over all of k. B is packed while the first rows are multiplied, and
/// read again by the others. While they are multiplied by one block of B, the caches may be asked for the next one,
/// which may be that of another task, from `next_column` on.
template <class T, class Out>
void multiply_block(const MatmulTasks<T, Out>& problem, std::int64_t row0, std::int64_t column0,
                    std::int64_t next_column, compute_t<T>* sums, compute_t<T>* packed_b) {
    using C = compute_t<T>;
    const MatmulBlocks& blocks = problem.blocks;
    const std::int64_t panel = blocks.panel, tile_rows = blocks.tile_rows;
    const std::int64_t rows = std::min(blocks.rows, problem.m - row0);
    const std::int64_t columns = std::min(blocks.group, problem.n - column0);
    const std::int64_t panels = MatmulBlocks::pieces(columns, panel);
    const bool is_single = problem.k <= blocks.k; // then each strip's sums can use the same memory
    const std::int64_t parts = problem.tile.parts();
    for (std::int64_t r0 = 0; r0 < rows; r0 += blocks.cached_rows) {
        const std::int64_t end = std::min(rows, r0 + blocks.cached_rows);
        const std::int64_t strips = MatmulBlocks::pieces(end - r0, tile_rows), tiles = panels * strips;
        ResultAhead<Out> result_ahead(problem.out + (row0 + r0) * problem.n + column0, problem.n, end - r0, columns,
                                      tiles * (problem.k == 0 ? 1 : MatmulBlocks::pieces(problem.k, blocks.k)));
        std::int64_t k0 = 0;
        do { // once without any k, too: the empty sum
            const std::int64_t k = std::min(blocks.k, problem.k - k0);
            C* block = packed_b + (blocks.keeps_b ? k0 * parts * panels * panel : 0);
            if (r0 == 0) {
                problem.pack(k0, k, column0, columns, panel, block);
            }
            const bool is_last = k0 + k == problem.k;
            const std::int64_t ahead_column = r0 != 0 ? problem.n : is_last ? next_column : column0;
            BlockAhead block_ahead(problem, is_last ? 0 : k0 + k, ahead_column, tiles);
            for (std::int64_t p = 0; p < columns; p += panel) {
                const C* b = block + p * k * parts;
                simd::run_for_isa<MultiplyPanel>(
                    problem,
                    PanelOfBlock<C>{.values = b,
                                    .next = p + panel < columns ? b + panel * k * parts : nullptr,
                                    .row = row0 + r0,
                                    .rows = end - r0,
                                    .column = column0 + p,
                                    .k0 = k0,
                                    .k = k,
                                    .width = static_cast<int>(std::min<std::int64_t>(panel, columns - p)),
                                    .c = sums + (is_single ? 0 : p * blocks.cached_rows),
                                    .c_strip = is_single ? 0 : tile_rows * panel,
                                    .is_last = is_last},
                    block_ahead, result_ahead);
            }
            k0 += blocks.k;
        } while (k0 < problem.k);
    }
}

/// The product over the problem's steps of k.
template <class T, class Out>
void multiply(MatmulTasks<T, Out> problem) {
    using C = compute_t<T>;
    const MatmulBlocks& blocks = problem.blocks;
    const std::int64_t padded = MatmulBlocks::pieces(problem.m, blocks.tile_rows) * blocks.tile_rows;
    const bool is_paired = problem.tile.kind != Packed::values;
    const std::int64_t parts = problem.tile.parts(), stride = is_paired ? pair_row(parts * problem.k) : problem.k;
    auto memory = Storage<Cpu>::allocate(static_cast<std::size_t>(padded * stride) * sizeof(C));
    C* packed_a = static_cast<C*>(memory.mutable_data());
    problem.a = is_paired ? PackedRows<C>{.values = packed_a, .row = stride, .step = parts}
                          : PackedRows<C>{.values = packed_a, .rows = padded};
    if constexpr (std::same_as<C, float>) {
        is_paired ? pack_pairs(problem, stride, packed_a) : pack_strips(problem, packed_a);
    } else {
        pack_strips(problem, packed_a);
    }
    const std::int64_t row_blocks = MatmulBlocks::pieces(problem.m, blocks.rows);
    const std::int64_t groups = MatmulBlocks::pieces(problem.n, blocks.group);
    const std::int64_t sums_of_task = (problem.k <= blocks.k ? blocks.tile_rows : blocks.cached_rows) * blocks.group;
    const std::int64_t packed_b_of_task = (blocks.keeps_b ? problem.k : blocks.k) * parts * blocks.group;
    parallel_for(row_blocks * groups, [&](std::int64_t task) {
        const std::int64_t next = task + num_threads(); // of this thread, when all tasks take the same time
        auto scratch = Storage<Cpu>::allocate(static_cast<std::size_t>(sums_of_task + packed_b_of_task) * sizeof(C));
        C* sums = static_cast<C*>(scratch.mutable_data());
#if defined(__x86_64__)
        std::optional<AmxRegisters> registers;
        if (problem.tile.is_amx) {
            registers.emplace();
        }
#endif
        multiply_block(problem, task % row_blocks * blocks.rows, task / row_blocks * blocks.group,
                       next / row_blocks * blocks.group, sums, sums + sums_of_task);
    });
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
    if (m <= detail::few_rows) {
        detail::multiply_few_rows<T, Out>(m, n, segments, out, epilogue);
        return;
    }
    const bool is_narrow = detail::is_narrow(n, segments);
    const auto tile = is_narrow ? detail::MatmulTile::of_values<C>(simd::active_isa())
                                : detail::MatmulTile::of<T>(simd::active_isa());
    std::int64_t k = 0; // steps
    for (const MatmulSegment<T, Cpu>& segment : segments) {
        k += tile.steps_of(segment.k);
    }
    // The packed left factor of a very long inner dimension, such as a vocabulary, would be as large as the factor, and
    // come from memory again for each group of columns.
    const std::int64_t long_k = tile.kind == detail::Packed::values ? 2048 : 8192 / tile.parts();
    const bool can_add = std::same_as<Out, C> && epilogue.is_plain();
    const std::int64_t parts = can_add ? detail::MatmulBlocks::pieces(k, long_k) : 1;
    const std::int64_t step =
        tile.steps_of(tile.numbers_of(detail::MatmulBlocks::pieces(k, std::max<std::int64_t>(parts, 1))));
    MatmulEpilogue<T, Out> e = epilogue;
    std::int64_t first = 0;
    do { // once without any k, too
        const std::int64_t steps = std::min(step, k - first);
        const auto blocks = detail::MatmulBlocks::of(tile, m, n, steps);
        const detail::MatmulTasks<T, Out> problem{m, n, first, steps, segments, tile, blocks, {}, out, e};
        if constexpr (std::same_as<T, C>) {
            is_narrow ? detail::multiply_narrow(problem) : detail::multiply(problem);
        } else {
            detail::multiply(problem);
        }
        e.accumulate = true;
        first += steps;
    } while (first < k);
}

} // namespace lowrank
