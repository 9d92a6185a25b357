// Copying a block of a matrix between two layouts, with conversion: what packing a panel comes down to.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>

#include "lowrank/core/scalar.hpp"
#include "lowrank/simd/dispatch.hpp"
#include "lowrank/simd/memory.hpp"
#include "lowrank/simd/transpose.hpp"

namespace lowrank {

/// Asks the second-level cache, or the first-level cache where Locality is 3, for rows of `columns` values that are
/// `row_stride` apart.
template <int Locality = 2, class T>
LOWRANK_INLINE void prefetch_rows(const T* from, std::int64_t rows, std::int64_t columns, std::int64_t row_stride) {
    constexpr auto line = static_cast<std::int64_t>(64 / sizeof(T));
    for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t c = 0; c < columns; c += line) {
            __builtin_prefetch(from + r * row_stride + c, 0, Locality);
        }
    }
}

namespace detail {

/// What vectors load with conversion.
template <class From, class To>
concept VectorConvertible = ((std::same_as<To, float> || std::same_as<To, bf16>)&&(std::same_as<From, float> ||
                                                                                   std::same_as<From, bf16> ||
                                                                                   std::same_as<From, fp16>)) ||
                            (std::same_as<To, double> && (std::same_as<From, double> || std::same_as<From, float>));

/// Vectors that To is converted in.
template <class To, int Width>
using CopyVector = simd::Vec<compute_t<To>, Width * 4 / int(sizeof(compute_t<To>))>;

struct CopyRows {
    /// Element (r, c) goes to to[c / panel · to_panel + r · to_row + c % panel].
    template <int Width, class From, class To>
    LOWRANK_INLINE static void run(std::int64_t rows, std::int64_t columns, const From* from, std::int64_t from_row,
                                   To* to, std::int64_t to_row, std::int64_t panel, std::int64_t to_panel) {
        using V = CopyVector<To, Width>;
        const std::int64_t ahead = columns <= 256 ? 12 : rows; // short rows that lie pages apart no processor foresees
        for (std::int64_t r = 0; r < rows; ++r, from += from_row, to += to_row) {
            if (r + ahead < rows) {
                prefetch_rows<3>(from + ahead * from_row, 1, columns, 0);
            }
            To* target = to;
            for (std::int64_t begin = 0; begin < columns; begin += panel, target += to_panel) {
                const std::int64_t count = std::min(panel, columns - begin);
                std::int64_t c = 0;
                for (; c + V::size <= count; c += V::size) {
                    simd::store(simd::load<V>(from + begin + c), target + c);
                }
                for (; c < count; ++c) {
                    target[c] = convert<To>(from[begin + c]);
                }
            }
        }
    }
};

struct TransposeRows {
    /// Element (r, c) goes to to[c · to_column + r].
    template <int Width, class From, class To>
    LOWRANK_INLINE static void run(std::int64_t rows, std::int64_t columns, const From* from, std::int64_t from_row,
                                   To* to, std::int64_t to_column) {
        using V = CopyVector<To, Width>;
        constexpr std::int64_t size = V::size;
        // The last rows come first: where the target has no gaps, their vectors may run over into the next columns,
        // which get their values afterwards.
        for (std::int64_t end = rows; end > 0; end = (end - 1) / size * size) {
            const std::int64_t begin = (end - 1) / size * size, count = end - begin;
            std::int64_t c = 0;
            for (; c + size <= columns; c += size) {
                V block[V::size];
#pragma GCC unroll 16
                for (int i = 0; i < V::size; ++i) {
                    block[i] = i < count ? simd::load<V>(from + (begin + i) * from_row + c) : V(0);
                }
                simd::transpose(block);
                const bool runs_over =
                    count == size || (rows == to_column && (c + size - 1) * rows + begin + size <= columns * rows);
#pragma GCC unroll 16
                for (int i = 0; i < V::size; ++i) {
                    To* target = to + (c + i) * to_column + begin;
                    if (runs_over) {
                        simd::store(block[i], target);
                    } else {
                        simd::store(block[i], target, count);
                    }
                }
            }
            for (; c < columns; ++c) {
                for (std::int64_t r = begin; r < end; ++r) {
                    to[c * to_column + r] = convert<To>(from[r * from_row + c]);
                }
            }
        }
    }
};

} // namespace detail

/// Element (r, c) of a `rows` × `columns` block is read from from[r · from_row + c] and written, converted, to
/// to[r · to_row + c · to_column]; one of the two is 1. The blocks do not overlap.
template <class From, class To>
void copy_block(std::int64_t rows, std::int64_t columns, const From* from, std::int64_t from_row, To* to,
                std::int64_t to_row, std::int64_t to_column) {
    if constexpr (std::same_as<From, To>) {
        if (to_column == 1) {
            for (std::int64_t r = 0; r < rows; ++r) {
                std::copy_n(from + r * from_row, columns, to + r * to_row);
            }
            return;
        }
    }
    if constexpr (detail::VectorConvertible<From, To>) {
        if (to_column == 1) {
            simd::run_for_isa<detail::CopyRows>(rows, columns, from, from_row, to, to_row, columns, 0);
            return;
        }
        if (to_row == 1) {
            simd::run_for_isa<detail::TransposeRows>(rows, columns, from, from_row, to, to_column);
            return;
        }
    }
    for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t c = 0; c < columns; ++c) {
            to[r * to_row + c * to_column] = convert<To>(from[r * from_row + c]);
        }
    }
}

/// Element (r, c) of a `rows` × `columns` block is read from from[r · from_row + c] and written, converted, to
/// to[c / panel · to_panel + r · panel + c % panel]: into panels of `panel` columns, `to_panel` apart.
template <class From, class To>
requires detail::VectorConvertible<From, To>
void copy_panels(std::int64_t rows, std::int64_t columns, const From* from, std::int64_t from_row, To* to,
                 std::int64_t panel, std::int64_t to_panel) {
    simd::run_for_isa<detail::CopyRows>(rows, columns, from, from_row, to, panel, panel, to_panel);
}

} // namespace lowrank
