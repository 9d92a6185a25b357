// Products of few rows on the host. They take as long as the memory of the right factor, so that is read once, where it
// lies and in its own order; nothing is packed.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>
#include <vector>

#include "lowrank/backend/cpu/matmul_blocks.hpp"
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

/// sums[r, c] += x[r, :] · b[:, c] for a block b [k, columns] whose rows are contiguous and b_row apart. Rows of sums
/// have whole vectors.
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
            const S* from = b + c;
            std::int64_t row = b_row;
            S padded[Steps * V::size];
            if (c + V::size > columns) {
                std::fill(padded, padded + Steps * V::size, S());
                for (int i = 0; i < Steps; ++i) {
                    std::copy_n(from + i * b_row, columns - c, padded + i * V::size);
                }
                from = padded;
                row = V::size;
            }
            V w[Steps];
#pragma GCC unroll 8
            for (int i = 0; i < Steps; ++i) {
                w[i] = simd::load<V>(from + i * row);
                __builtin_prefetch(from + (Steps + i) * row, 0, 2);
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
            std::int64_t r = 0;
            for (; r + 4 <= rows; r += 4) {
                add<V, 4, 4>(k, x + r * x_row, x_row, b + c * b_column, b_column, sums + r * sums_row + c, sums_row);
            }
            for (; r < rows; ++r) {
                add<V, 1, 4>(k, x + r * x_row, x_row, b + c * b_column, b_column, sums + r * sums_row + c, sums_row);
            }
        }
        for (; c < columns; ++c) {
            for (std::int64_t r = 0; r < rows; ++r) {
                add<V, 1, 1>(k, x + r * x_row, x_row, b + c * b_column, b_column, sums + r * sums_row + c, sums_row);
            }
        }
    }

  private:
    template <class V, int Rows, int Columns, class C, class S>
    LOWRANK_INLINE static void add(std::int64_t k, const C* x, std::int64_t x_row, const S* b, std::int64_t b_column,
                                   C* sums, std::int64_t sums_row) {
        V sum[Rows][Columns];
#pragma GCC unroll 16
        for (int i = 0; i < Rows * Columns; ++i) {
            sum[i / Columns][i % Columns] = V(C(0));
        }
        for (std::int64_t i = 0; i < k; i += V::size) {
            const C* values = x + i;
            const S* from = b + i;
            std::int64_t row = x_row, column = b_column;
            C padded_x[Rows * V::size];
            S padded[Columns * V::size];
            if (i + V::size > k) {
                std::fill(padded_x, padded_x + Rows * V::size, C(0));
                std::fill(padded, padded + Columns * V::size, S());
                for (int r = 0; r < Rows; ++r) {
                    std::copy_n(values + r * x_row, k - i, padded_x + r * V::size);
                }
                for (int c = 0; c < Columns; ++c) {
                    std::copy_n(from + c * b_column, k - i, padded + c * V::size);
                }
                values = padded_x;
                from = padded;
                row = column = V::size;
            }
            V w[Columns];
#pragma GCC unroll 4
            for (int c = 0; c < Columns; ++c) {
                w[c] = simd::load<V>(from + c * column);
                __builtin_prefetch(from + (Columns + c) * column, 0, 2);
            }
#pragma GCC unroll 4
            for (int r = 0; r < Rows; ++r) {
                const V of_row = simd::load<V>(values + r * row);
#pragma GCC unroll 4
                for (int c = 0; c < Columns; ++c) {
                    sum[r][c] = simd::accumulate(sum[r][c], of_row, w[c]);
                }
            }
        }
#pragma GCC unroll 16
        for (int i = 0; i < Rows * Columns; ++i) {
            sums[i / Columns * sums_row + i % Columns] += reduce_add(sum[i / Columns][i % Columns]);
        }
    }
};

/// What an addition of products is about: columns of B from `column` on, and the rows x and their sums.
template <class C>
struct FewRows {
    std::int64_t rows, k, column, columns;
    const C* x;
    std::int64_t x_row;
    C* sums;
    std::int64_t sums_row;
};

/// Adds x · B for a factor in memory, whose rows or columns are contiguous; false for another.
template <class C, class S>
bool add_in_place(const FewRows<C>& of, const MatrixView<S>& b) {
    const bool is_by_rows = b.column_stride == 1;
    if (b.data == nullptr || !(is_by_rows || b.row_stride == 1)) {
        return false;
    }
    if (is_by_rows) {
        simd::run_for_isa<AddRows>(of.rows, of.k, of.columns, of.x, of.x_row, b.data + of.column, b.row_stride, of.sums,
                                   of.sums_row);
    } else {
        simd::run_for_isa<AddColumns>(of.rows, of.k, of.columns, of.x, of.x_row, b.data + of.column * b.column_stride,
                                      b.column_stride, of.sums, of.sums_row);
    }
    return true;
}

/// Adds x · B for any factor, a part of which goes through `scratch`, converted, at a time: `room` numbers, or a
/// column.
template <class C, class T, class S>
void add_converted(const FewRows<C>& of, const MatrixOperand<T, Cpu>& b, S* scratch, std::int64_t room) {
    FewRows<C> part = of;
    part.column = 0;
    if (rows_are_contiguous(b)) {
        for (std::int64_t i = 0, most = room / of.columns; i < of.k; i += most) {
            part.k = std::min(most, of.k - i);
            part.x = of.x + i;
            read_block(b, i, part.k, of.column, of.columns, scratch, of.columns);
            add_in_place(part, matrix(static_cast<const S*>(scratch), of.columns));
        }
        return;
    }
    for (std::int64_t c = 0, most = std::max<std::int64_t>(1, room / of.k); c < of.columns; c += most) {
        part.columns = std::min(most, of.columns - c);
        part.sums = of.sums + c;
        read_columns(b, 0, of.k, of.column + c, part.columns, scratch, of.k);
        add_in_place(part, matrix(static_cast<const S*>(scratch), of.k).transposed());
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
    // Where more rows would be multiplied as pairs of bf16, wider numbers are rounded to what is multiplied there.
    const bool rounds = MatmulTile::of<T>(simd::active_isa()).kind == Packed::bf16_pairs;
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
        FewRows<C> of{m, 0, begin, columns, x, k, sums, sums_row};
        for (const MatmulSegment<T, Cpu>& segment : segments) {
            of.k = segment.k;
            const bool is_added =
                add_in_place(of, segment.b.values) || (!rounds && add_in_place(of, segment.b.parameters));
            if (!is_added && rounds) {
                add_converted(of, segment.b, reinterpret_cast<T*>(scratch), room);
            } else if (!is_added) {
                add_converted(of, segment.b, scratch, room);
            }
            of.x += segment.k;
        }
        finish_sums(epilogue, m, sums, sums_row, static_cast<int>(columns), begin, begin, n, out);
    });
}

} // namespace lowrank::detail
