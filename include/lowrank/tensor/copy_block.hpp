// Copying a block of a matrix between two layouts, with conversion: what packing a panel comes down to.
#pragma once

#include <algorithm>
#include <cstdint>

#include "lowrank/core/scalar.hpp"

namespace lowrank {

/// Element (r, c) of a `rows` × `columns` block is read from from[r · from_row + c] and written, converted, to
/// to[r · to_row + c · to_column]. A source whose rows become columns is read by lines of memory, so that the lines
/// which are written stay in the first-level cache.
template <class From, class To>
void copy_block(std::int64_t rows, std::int64_t columns, const From* from, std::int64_t from_row, To* to,
                std::int64_t to_row, std::int64_t to_column) {
    if (to_column == 1) {
        for (std::int64_t r = 0; r < rows; ++r) {
            std::transform(from + r * from_row, from + r * from_row + columns, to + r * to_row, convert<To, From>);
        }
        return;
    }
    constexpr std::int64_t line = 64 / std::int64_t(sizeof(From));
    for (std::int64_t begin = 0; begin < columns; begin += line) {
        const std::int64_t end = std::min(columns, begin + line);
        for (std::int64_t r = 0; r < rows; ++r) {
            for (std::int64_t c = begin; c < end; ++c) {
                to[r * to_row + c * to_column] = convert<To>(from[r * from_row + c]);
            }
        }
    }
}

} // namespace lowrank
