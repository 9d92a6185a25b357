// The matmul engine of the host: blocks of rows times groups of packed panels, in parallel, with a fused epilogue.
// The blocking follows Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>
#include <vector>

#include "lowrank/backend/cpu/matmul_epilogue.hpp"
#include "lowrank/backend/cpu/matmul_tile.hpp"
#include "lowrank/backend/cpu/matrix_operand.hpp"
#include "lowrank/core/parallel.hpp"
#include "lowrank/core/storage.hpp"
#include "lowrank/simd/dispatch.hpp"

namespace lowrank {
namespace detail {

/// How a product is cut into blocks, for registers of `width` floats. In elements; all row counts are multiples of the
/// tile's rows. The order in which an element's products are summed does not depend on it.
struct MatmulBlocks {
    int tile_rows;
    std::int64_t panel;             // columns of a panel of B
    std::int64_t group = 4 * panel; // columns of a task
    std::int64_t rows = 0;          // rows of a task
    std::int64_t k = 0;             // steps of k between visits of the sums
    std::int64_t cached_rows = 0;   // rows of it whose sums stay in the cache over all of k
    bool keeps_b = false;           // B stays packed, over all of k, for the rows behind these
    bool by_rows = false;           // B's rows are read in long runs, a few at a time

    /// For a product of m rows, n columns and k steps. Each task packs its panels, so a task has many rows; but there
    /// are to be three tasks for a thread. A single strip of rows waits for the memory that B lies in: there B is read
    /// in its own order.
    template <class C>
    static MatmulBlocks of(int width, std::int64_t m, std::int64_t n, std::int64_t k, bool b_has_contiguous_rows) {
        constexpr std::int64_t most_rows = 1152, least_strips = 12, most_cached_strips = 25, most_k = 272;
        constexpr std::int64_t most_panels = 16, few = 8; // by rows: their sets in the cache differ
        MatmulBlocks blocks{.tile_rows = tile_rows_of(width), .panel = tile_vectors_of(width) * tile_lanes<C>(width)};
        const std::int64_t strips = pieces(m, blocks.tile_rows), panels = pieces(n, blocks.panel);
        const std::int64_t tasks = std::max(
            pieces(m, most_rows), std::min(pieces(3 * num_threads(), pieces(n, blocks.group)), strips / least_strips));
        blocks.rows = pieces(strips, tasks) * blocks.tile_rows;
        blocks.cached_rows = std::min(blocks.rows, most_cached_strips * blocks.tile_rows);
        blocks.keeps_b = blocks.rows > blocks.cached_rows;
        blocks.k = pieces(k, std::max<std::int64_t>(1, pieces(k, most_k)));
        if (strips == 1 && b_has_contiguous_rows) {
            blocks.by_rows = true;
            blocks.k = few;
            blocks.group = std::clamp<std::int64_t>(pieces(panels, 2 * num_threads()), 1, most_panels) * blocks.panel;
        }
        return blocks;
    }

    /// How many pieces of at most `most` cover `whole`.
    static constexpr std::int64_t pieces(std::int64_t whole, std::int64_t most) { return (whole + most - 1) / most; }
};

/// A product whose left factor is packed: all that its tasks share.
template <class T, class Out>
struct MatmulTasks {
    using C = compute_t<T>;
    std::int64_t m, n;
    std::int64_t first, k; // steps first … first + k - 1 of all segments one after the other
    std::span<const MatmulSegment<T, Cpu>> segments;
    MatmulBlocks blocks;
    const C* initial;  // [m, n]: where the sums begin; null: at zero
    const C* packed_a; // strips of tile-rows rows, each k × tile-rows
    Out* out;          // [m, n], row-major
    MatmulEpilogue<T, Out> epilogue;

    /// Calls visit(segment, first row of its B, rows, rows before these) for the parts of `count` steps, k0 after the
    /// first.
    template <class Visit>
    void for_steps(std::int64_t k0, std::int64_t count, const Visit& visit) const {
        std::int64_t begin = -first;
        for (const MatmulSegment<T, Cpu>& segment : segments) {
            const std::int64_t from = std::max(k0, begin), to = std::min(k0 + count, begin + segment.k);
            if (from < to) {
                visit(segment, from - begin, to - from, from - k0);
            }
            begin += segment.k;
        }
    }

    /// Packs steps k0 … k0 + count - 1 of B, `columns` from `column` on, into rows of `stride` values.
    void pack(std::int64_t k0, std::int64_t count, std::int64_t column, std::int64_t columns, std::int64_t stride,
              C* target) const {
        if (columns < stride) {
            std::fill(target, target + count * stride, C(0));
        }
        for_steps(k0, count, [&](const auto& segment, std::int64_t row, std::int64_t rows, std::int64_t before) {
            C* part = target + before * stride;
            read_block(segment.b, row, rows, column, columns, part, stride);
            if (segment.scale != C(1)) {
                for (std::int64_t i = 0; i < rows * stride; ++i) {
                    part[i] *= segment.scale;
                }
            }
        });
    }

    /// Asks the caches for steps of B that will be packed soon.
    void prefetch(std::int64_t k0, std::int64_t count, std::int64_t column, std::int64_t columns) const {
        for_steps(k0, count, [&](const auto& segment, std::int64_t row, std::int64_t rows, std::int64_t) {
            prefetch_block(segment.b, row, rows, column, columns);
        });
    }
};

/// The block of B that is packed next. It is fetched into the cache a little before each of `strips` strips.
template <class T, class Out>
class BlockAhead {
  public:
    BlockAhead(const MatmulTasks<T, Out>& problem, std::int64_t k0, std::int64_t column, std::int64_t strips)
        : problem_(problem),
          k_(k0),
          end_(column < problem.n && !problem.blocks.by_rows ? std::min(k0 + problem.blocks.k, problem.k) : k0),
          step_(end_ == k0 ? 0 : MatmulBlocks::pieces(end_ - k0, std::max<std::int64_t>(strips, 1))),
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

/// One task: a block of rows by a group of panels, over all of k. B is packed while the first rows are multiplied, and
/// read again by the others. While they are multiplied by one block of B, the caches are asked for the next one, which
/// may be that of another task, from `next_column` on.
struct MultiplyBlock {
    template <int Width, class T, class Out>
    LOWRANK_INLINE static void run(const MatmulTasks<T, Out>& problem, std::int64_t row0, std::int64_t column0,
                                   std::int64_t next_column, compute_t<T>* sums, compute_t<T>* packed_b) {
        using C = compute_t<T>;
        constexpr int lanes = tile_lanes<C>(Width), vectors = tile_vectors_of(Width), panel = vectors * lanes;
        constexpr int tile_rows = tile_rows_of(Width);
        const MatmulBlocks& blocks = problem.blocks;
        const std::int64_t rows = std::min(blocks.rows, problem.m - row0);
        const std::int64_t columns = std::min(blocks.group, problem.n - column0);
        const std::int64_t panels = MatmulBlocks::pieces(columns, panel);
        const std::int64_t b_stride = blocks.by_rows ? panels * panel : panel;
        const bool is_single = problem.k <= blocks.k; // then each strip's sums can use the same memory
        for (std::int64_t r0 = 0; r0 < rows; r0 += blocks.cached_rows) {
            const std::int64_t end = std::min(rows, r0 + blocks.cached_rows);
            std::int64_t k0 = 0;
            do { // once without any k, too: the empty sum
                const std::int64_t k = std::min(blocks.k, problem.k - k0);
                C* block = packed_b + (blocks.keeps_b ? k0 * panels * panel : 0);
                if (blocks.by_rows) {
                    problem.pack(k0, k, column0, columns, b_stride, block);
                } else if (r0 == 0) {
                    for (std::int64_t p = 0; p < columns; p += panel) {
                        problem.pack(k0, k, column0 + p, std::min<std::int64_t>(panel, columns - p), panel,
                                     block + p * k);
                    }
                }
                const bool is_last = k0 + k == problem.k;
                const std::int64_t ahead_column = r0 != 0 ? problem.n : is_last ? next_column : column0;
                BlockAhead ahead(problem, is_last ? 0 : k0 + k, ahead_column,
                                 panels * MatmulBlocks::pieces(end - r0, tile_rows));
                for (std::int64_t p = 0; p < columns; p += panel) {
                    const C* b = block + (blocks.by_rows ? p : p * k);
                    const int width = static_cast<int>(std::min<std::int64_t>(panel, columns - p));
                    for (std::int64_t r = r0; r < end; r += tile_rows) {
                        ahead.fetch();
                        const C* a = problem.packed_a + (row0 + r) * problem.k + k0 * tile_rows;
                        C* c = sums + (is_single ? 0 : p * blocks.cached_rows + (r - r0) * panel);
                        const std::int64_t count = std::min<std::int64_t>(tile_rows, end - r);
                        const bool adds = k0 != 0 || problem.initial != nullptr;
                        for (std::int64_t i = 0; k0 == 0 && adds && i < count; ++i) {
                            std::copy_n(problem.initial + (row0 + r + i) * problem.n + column0 + p, width,
                                        c + i * panel);
                        }
                        multiply_columns<C, Width>(width, count, a, 1, tile_rows, b, b_stride, c, k, adds);
                        if (is_last) {
                            for (std::int64_t i = 0; i < count; ++i) {
                                finish_row<lanes>(problem.epilogue, c + i * panel, width, column0 + p,
                                                  (row0 + r + i) * problem.n + column0 + p, problem.out);
                            }
                        }
                    }
                }
                k0 += blocks.k;
            } while (k0 < problem.k);
        }
    }
};

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
            for (std::int64_t i = 0; i < count; ++i) {
                finish_row<lanes>(problem.epilogue, sums + i * panel, width, 0, (row + i) * problem.n, problem.out);
            }
        }
    }
};

/// Packs the rows of the left factors into strips: within a strip, the rows' values of one step of k lie together.
template <class T, class Out>
void pack_strips(const MatmulTasks<T, Out>& problem, compute_t<T>* target) {
    const std::int64_t tile_rows = problem.blocks.tile_rows, strips = MatmulBlocks::pieces(problem.m, tile_rows);
    const std::int64_t grain = std::max<std::int64_t>(1, 65536 / (tile_rows * std::max<std::int64_t>(problem.k, 1)));
    parallel_chunks(strips, grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t strip = begin; strip < end; ++strip) {
            const std::int64_t row = strip * tile_rows, rows = std::min(tile_rows, problem.m - row);
            problem.for_steps(0, problem.k,
                              [&](const auto& segment, std::int64_t k0, std::int64_t k, std::int64_t before) {
                                  read_block(segment.a.transposed(), k0, k, row, rows,
                                             target + row * problem.k + before * tile_rows, tile_rows);
                              });
        }
    });
}

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

/// The product over the problem's steps of k.
template <class T, class Out>
void multiply(MatmulTasks<T, Out> problem) {
    using C = compute_t<T>;
    const MatmulBlocks& blocks = problem.blocks;
    if constexpr (std::same_as<T, C>) {
        const auto has_contiguous_rows = [](const auto& segment) { return segment.a.column_stride == 1; };
        if (problem.n <= blocks.panel &&
            std::all_of(problem.segments.begin(), problem.segments.end(), has_contiguous_rows)) {
            multiply_narrow(problem);
            return;
        }
    }
    const std::int64_t padded = MatmulBlocks::pieces(problem.m, blocks.tile_rows) * blocks.tile_rows;
    auto memory = Storage<Cpu>::allocate(static_cast<std::size_t>(padded * problem.k) * sizeof(C));
    C* packed_a = static_cast<C*>(memory.mutable_data());
    pack_strips(problem, packed_a);
    problem.packed_a = packed_a;
    const std::int64_t row_blocks = MatmulBlocks::pieces(problem.m, blocks.rows);
    const std::int64_t groups = MatmulBlocks::pieces(problem.n, blocks.group);
    const std::int64_t sums_of_task = (problem.k <= blocks.k ? blocks.tile_rows : blocks.cached_rows) * blocks.group;
    const std::int64_t packed_b_of_task = (blocks.keeps_b ? problem.k : blocks.k) * blocks.group;
    parallel_for(row_blocks * groups, [&](std::int64_t task) {
        const std::int64_t next = task + num_threads(); // of this thread, when all tasks take the same time
        auto scratch = Storage<Cpu>::allocate(static_cast<std::size_t>(sums_of_task + packed_b_of_task) * sizeof(C));
        C* sums = static_cast<C*>(scratch.mutable_data());
        simd::run_for_isa<MultiplyBlock>(problem, task % row_blocks * blocks.rows, task / row_blocks * blocks.group,
                                         next / row_blocks * blocks.group, sums, sums + sums_of_task);
    });
}

/// The products [m, n] of a few rows with a weight that forms them by itself; empty where it does not.
template <class T>
std::vector<compute_t<T>> multiply_stored(std::int64_t m, std::int64_t n, const MatmulSegment<T, Cpu>& segment) {
    std::vector<compute_t<T>> products;
    if constexpr (std::same_as<compute_t<T>, float>) {
        const Weight<Cpu>* weight = segment.b.weight;
        if (weight != nullptr && !segment.b.transposed && segment.scale == 1.0f && m <= weight->most_rows()) {
            std::vector<float> x(static_cast<std::size_t>(m * segment.k));
            read_block(segment.a, 0, m, 0, segment.k, x.data(), segment.k);
            products.resize(static_cast<std::size_t>(m * n));
            weight->multiply_rows(x.data(), m, products.data());
        }
    }
    return products;
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
    std::int64_t k = 0;
    for (const MatmulSegment<T, Cpu>& segment : segments) {
        k += segment.k;
    }
    // The products with the first of them, where its weight forms them by itself.
    std::vector<C> initial;
    if (!segments.empty()) {
        initial = detail::multiply_stored(m, n, segments.front());
    }
    const C* sums = nullptr;
    if (!initial.empty()) {
        sums = initial.data();
        k -= segments.front().k;
        segments = segments.subspan(1);
    }
    // The packed left factor of a very long inner dimension, such as a vocabulary, would be as large as the factor.
    constexpr std::int64_t long_k = 8192;
    const bool can_add = std::same_as<Out, C> && epilogue.is_plain();
    const std::int64_t parts = can_add ? detail::MatmulBlocks::pieces(k, long_k) : 1;
    const std::int64_t step = detail::MatmulBlocks::pieces(k, std::max<std::int64_t>(parts, 1));
    const bool b_by_rows = !segments.empty() && detail::rows_are_contiguous(segments.front().b);
    const int width = simd::width_of(simd::active_isa());
    MatmulEpilogue<T, Out> e = epilogue;
    std::int64_t first = 0;
    do { // once without any k, too
        const std::int64_t steps = std::min(step, k - first);
        const auto blocks = detail::MatmulBlocks::of<C>(width, m, n, steps, b_by_rows);
        detail::multiply(detail::MatmulTasks<T, Out>{m, n, first, steps, segments, blocks, sums, nullptr, out, e});
        sums = nullptr;
        e.accumulate = true;
        first += steps;
    } while (first < k);
}

} // namespace lowrank
