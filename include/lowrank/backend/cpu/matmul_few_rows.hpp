// Products of few rows on the host. They take as long as the memory of the right factor, so that is read once, where it
// lies and in its own order; nothing is packed.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "lowrank/backend/cpu/matmul_epilogue.hpp"
#include "lowrank/backend/cpu/matmul_tile.hpp"
#include "lowrank/backend/cpu/matrix_operand.hpp"
#include "lowrank/core/parallel.hpp"
#include "lowrank/core/storage.hpp"
#include "lowrank/simd/dispatch.hpp"
#include "lowrank/tensor/matmul_problem.hpp"

namespace lowrank::detail {

/// Products of up to so many rows are formed here.
inline constexpr std::int64_t few_rows = 8;

/// sums[r, c] += x[r, :] · b[:, c] for a block b [k, columns] whose rows are contiguous and b_row apart.
struct AddRows {
    template <int Width, class C, class S>
    LOWRANK_INLINE static void run(std::int64_t rows, std::int64_t k, std::int64_t columns, const C* x,
                                   std::int64_t x_row, const S* b, std::int64_t b_row, C* sums, std::int64_t sums_row) {
        using V = simd::Vec<C, tile_lanes<C>(Width)>;
        constexpr int steps = 8; // the sums wait in the cache, and are visited once for so many
        std::int64_t i = 0;
        for (; i + steps <= k; i += steps) {
            add<V, steps>(rows, columns, x + i, x_row, b + i * b_row, b_row, sums, sums_row);
        }
        for (; i < k; ++i) {
            add<V, 1>(rows, columns, x + i, x_row, b + i * b_row, b_row, sums, sums_row);
        }
    }

  private:
    template <class V, int Steps, class C, class S>
    LOWRANK_INLINE static void add(std::int64_t rows, std::int64_t columns, const C* x, std::int64_t x_row, const S* b,
                                   std::int64_t b_row, C* sums, std::int64_t sums_row) {
        for (std::int64_t c = 0; c < columns; c += V::size) {
            const std::int64_t count = std::min<std::int64_t>(V::size, columns - c);
            V w[Steps];
#pragma GCC unroll 8
            for (int i = 0; i < Steps; ++i) {
                w[i] = simd::load<V>(b + i * b_row + c, count);
                __builtin_prefetch(b + (Steps + i) * b_row + c, 0, 2);
            }
            for (std::int64_t r = 0; r < rows; ++r) {
                C* target = sums + r * sums_row + c;
                V sum = simd::load<V>(target);
#pragma GCC unroll 8
                for (int i = 0; i < Steps; ++i) {
                    sum = simd::accumulate(sum, x + r * x_row + i, w[i]);
                }
                simd::store(sum, target);
            }
        }
    }
};

/// The same for a block whose columns are contiguous and b_column apart.
struct AddColumns {
    template <int Width, class C, class S>
    LOWRANK_INLINE static void run(std::int64_t rows, std::int64_t k, std::int64_t columns, const C* x,
                                   std::int64_t x_row, const S* b, std::int64_t b_column, C* sums,
                                   std::int64_t sums_row) {
        using V = simd::Vec<C, tile_lanes<C>(Width)>;
        std::int64_t c = 0;
        for (; c + 4 <= columns; c += 4) {
            add<V, 4>(rows, k, x, x_row, b + c * b_column, b_column, sums + c, sums_row);
        }
        for (; c < columns; ++c) {
            add<V, 1>(rows, k, x, x_row, b + c * b_column, b_column, sums + c, sums_row);
        }
    }

  private:
    template <class V, int Columns, class C, class S>
    LOWRANK_INLINE static void add(std::int64_t rows, std::int64_t k, const C* x, std::int64_t x_row, const S* b,
                                   std::int64_t b_column, C* sums, std::int64_t sums_row) {
        std::int64_t r = 0;
        for (; r + 4 <= rows; r += 4) {
            add_tile<V, 4, Columns>(k, x + r * x_row, x_row, b, b_column, sums + r * sums_row, sums_row);
        }
        for (; r < rows; ++r) {
            add_tile<V, 1, Columns>(k, x + r * x_row, x_row, b, b_column, sums + r * sums_row, sums_row);
        }
    }

    template <class V, int Rows, int Columns, class C, class S>
    LOWRANK_INLINE static void add_tile(std::int64_t k, const C* x, std::int64_t x_row, const S* b,
                                        std::int64_t b_column, C* sums, std::int64_t sums_row) {
        V sum[Rows][Columns];
#pragma GCC unroll 4
        for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
            for (int c = 0; c < Columns; ++c) {
                sum[r][c] = V(C(0));
            }
        }
        constexpr std::integral_constant<std::int64_t, V::size> all;
        std::int64_t i = 0;
        for (; i + V::size <= k; i += V::size) {
            add_step(x + i, x_row, b + i, b_column, all, sum);
        }
        if (i < k) {
            add_step(x + i, x_row, b + i, b_column, k - i, sum);
        }
#pragma GCC unroll 4
        for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
            for (int c = 0; c < Columns; ++c) {
                sums[r * sums_row + c] += reduce_add(sum[r][c]);
            }
        }
    }

    /// `count` products of each column with each row, added lane by lane.
    template <class V, int Rows, int Columns, class C, class S, class Count>
    LOWRANK_INLINE static void add_step(const C* x, std::int64_t x_row, const S* b, std::int64_t b_column, Count count,
                                        V (&sum)[Rows][Columns]) {
        V w[Columns];
#pragma GCC unroll 4
        for (int c = 0; c < Columns; ++c) {
            w[c] = simd::load<V>(b + c * b_column, count);
            __builtin_prefetch(b + (Columns + c) * b_column, 0, 2);
        }
#pragma GCC unroll 4
        for (int r = 0; r < Rows; ++r) {
            const V values = simd::load<V>(x + r * x_row, count);
#pragma GCC unroll 4
            for (int c = 0; c < Columns; ++c) {
                sum[r][c] = simd::accumulate(sum[r][c], values, w[c]);
            }
        }
    }
};

/// Stores results of rows of sums that have whole vectors.
struct FinishRows {
    template <int Width, class T, class Out>
    LOWRANK_INLINE static void run(const MatmulEpilogue<T, Out>& epilogue, std::int64_t rows, const compute_t<T>* sums,
                                   std::int64_t sums_row, std::int64_t columns, std::int64_t column, std::int64_t n,
                                   Out* out) {
        finish_rows<tile_lanes<compute_t<T>>(Width)>(epilogue, rows, sums, sums_row, static_cast<int>(columns), column,
                                                     column, n, out);
    }
};

/// Adds x · B for `columns` columns of B from `column` on to the sums of `rows` rows: x has k numbers in a row. What
/// has to be decoded goes through `scratch` a little at a time.
template <class T, class C>
void add_products_of(const MatrixOperand<T, Cpu>& b, std::int64_t rows, std::int64_t k, std::int64_t column,
                     std::int64_t columns, const C* x, std::int64_t x_row, C* sums, std::int64_t sums_row, C* scratch,
                     std::int64_t room) {
    const auto add_in_place = [&](const auto& view) {
        const bool is_by_rows = view.column_stride == 1;
        if (view.data == nullptr || !(is_by_rows || view.row_stride == 1)) {
            return false;
        }
        if (is_by_rows) {
            simd::run_for_isa<AddRows>(rows, k, columns, x, x_row, view.data + column, view.row_stride, sums, sums_row);
        } else {
            simd::run_for_isa<AddColumns>(rows, k, columns, x, x_row, view.data + column * view.column_stride,
                                          view.column_stride, sums, sums_row);
        }
        return true;
    };
    if (add_in_place(b.values) || add_in_place(b.parameters)) {
        return;
    }
    if (rows_are_contiguous(b)) {
        const std::int64_t most = room / columns;
        for (std::int64_t i = 0; i < k; i += most) {
            const std::int64_t steps = std::min(most, k - i);
            read_block(b, i, steps, column, columns, scratch, columns);
            simd::run_for_isa<AddRows>(rows, steps, columns, x + i, x_row, static_cast<const C*>(scratch), columns,
                                       sums, sums_row);
        }
    } else {
        const std::int64_t most = std::max<std::int64_t>(1, room / k);
        for (std::int64_t c = 0; c < columns; c += most) {
            const std::int64_t count = std::min(most, columns - c);
            read_columns(b, 0, k, column + c, count, scratch, k);
            simd::run_for_isa<AddColumns>(rows, k, count, x, x_row, static_cast<const C*>(scratch), k, sums + c,
                                          sums_row);
        }
    }
}

/// The products [m, n] of a few rows with a weight that forms them by itself; empty where it does not.
template <class T>
std::vector<compute_t<T>> products_of_weight(std::int64_t m, std::int64_t n, const MatmulSegment<T, Cpu>& segment) {
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

/// A product of at most few_rows rows.
template <class T, class Out>
void multiply_few_rows(std::int64_t m, std::int64_t n, std::span<const MatmulSegment<T, Cpu>> segments, Out* out,
                       const MatmulEpilogue<T, Out>& epilogue) {
    using C = compute_t<T>;
    constexpr std::int64_t room = 8192,
                           lanes = 16; // numbers in two thirds of a first-level cache; any vector's divisor
    const auto whole = [](std::int64_t count) { return (count + lanes - 1) / lanes * lanes; };
    std::vector<C> initial;
    if (!segments.empty()) {
        initial = products_of_weight(m, n, segments.front());
        segments = segments.subspan(initial.empty() ? 0 : 1);
    }
    std::int64_t k = 0, longest = 0;
    for (const MatmulSegment<T, Cpu>& segment : segments) {
        k += segment.k;
        longest = std::max(longest, segment.k);
    }
    auto left = Storage<Cpu>::allocate(static_cast<std::size_t>(m * k) * sizeof(C));
    C* x = static_cast<C*>(left.mutable_data());
    std::int64_t before = 0;
    for (const MatmulSegment<T, Cpu>& segment : segments) {
        read_block(segment.a, 0, m, 0, segment.k, x + before, k);
        for (std::int64_t r = 0; r < m && segment.scale != C(1); ++r) {
            for (std::int64_t i = 0; i < segment.k; ++i) {
                x[r * k + before + i] *= segment.scale;
            }
        }
        before += segment.k;
    }
    // A task has as many columns as the cache holds sums of, but each thread has one, if not a small one.
    const std::int64_t share = (n + num_threads() - 1) / num_threads(), least = 65536 / std::max<std::int64_t>(k, 1);
    const std::int64_t grain = std::min(whole(std::max(share, least)), room / m / lanes * lanes);
    parallel_chunks(n, grain, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t columns = end - begin, sums_row = whole(columns);
        auto memory =
            Storage<Cpu>::allocate(static_cast<std::size_t>(m * sums_row + std::max(room, longest)) * sizeof(C));
        C *sums = static_cast<C*>(memory.mutable_data()), *scratch = sums + m * sums_row;
        std::fill_n(sums, m * sums_row, C(0));
        for (std::int64_t r = 0; !initial.empty() && r < m; ++r) {
            std::copy_n(initial.data() + r * n + begin, columns, sums + r * sums_row);
        }
        const C* values = x;
        for (const MatmulSegment<T, Cpu>& segment : segments) {
            add_products_of(segment.b, m, segment.k, begin, columns, values, k, sums, sums_row, scratch, room);
            values += segment.k;
        }
        simd::run_for_isa<FinishRows>(epilogue, m, static_cast<const C*>(sums), sums_row, columns, begin, n, out);
    });
}

} // namespace lowrank::detail
