// Reading blocks of a product's factors on the host, whatever they are: this is where packing converts and decodes.
#pragma once

#include <algorithm>
#include <cstdint>

#include "lowrank/tensor/copy_block.hpp"
#include "lowrank/tensor/matmul_problem.hpp"

namespace lowrank::detail {

/// Writes the block of `rows` × `columns` from (row, column) to target[r · stride + c], converted.
template <class S, class C>
void read_block(const MatrixView<S>& from, std::int64_t row, std::int64_t rows, std::int64_t column,
                std::int64_t columns, C* target, std::int64_t stride) {
    const S* source = from.data + row * from.row_stride + column * from.column_stride;
    if (from.column_stride == 1) {
        copy_block(rows, columns, source, from.row_stride, target, stride, 1);
    } else if (from.row_stride == 1) {
        copy_block(columns, rows, source, from.column_stride, target, 1, stride);
    } else {
        for (std::int64_t r = 0; r < rows; ++r) {
            for (std::int64_t c = 0; c < columns; ++c) {
                target[r * stride + c] = convert<C>(source[r * from.row_stride + c * from.column_stride]);
            }
        }
    }
}

template <class T, class C>
void read_block(const MatrixOperand<T, Cpu>& from, std::int64_t row, std::int64_t rows, std::int64_t column,
                std::int64_t columns, C* target, std::int64_t stride) {
    if (from.weight != nullptr && from.transposed) {
        from.weight->read({row, rows, column, columns, stride, 1}, target);
    } else if (from.weight != nullptr) {
        from.weight->read({column, columns, row, rows, 1, stride}, target);
    } else if (from.values.data != nullptr) {
        read_block(from.values, row, rows, column, columns, target, stride);
    } else {
        read_block(from.parameters, row, rows, column, columns, target, stride);
    }
}

/// The same into panels of `panel` columns, `to_panel` numbers apart. Where rows of the factor lie together all panels
/// are filled row by row, so that each row is met once.
template <class T, class C>
void read_panels(const MatrixOperand<T, Cpu>& from, std::int64_t row, std::int64_t rows, std::int64_t column,
                 std::int64_t columns, C* target, std::int64_t panel, std::int64_t to_panel) {
    const auto copy = [&](const auto& view) {
        copy_panels(rows, columns, view.data + row * view.row_stride + column, view.row_stride, target, panel,
                    to_panel);
    };
    if (from.weight == nullptr && from.values.data != nullptr && from.values.column_stride == 1) {
        copy(from.values);
    } else if (from.weight == nullptr && from.values.data == nullptr && from.parameters.column_stride == 1) {
        copy(from.parameters);
    } else {
        for (std::int64_t c = 0; c < columns; c += panel, target += to_panel) {
            read_block(from, row, rows, column + c, std::min(panel, columns - c), target, panel);
        }
    }
}

/// read_block with columns for rows: element (r, c) goes to target[c · stride + r].
template <class T, class C>
void read_columns(const MatrixOperand<T, Cpu>& from, std::int64_t row, std::int64_t rows, std::int64_t column,
                  std::int64_t columns, C* target, std::int64_t stride) {
    if (from.weight != nullptr && from.transposed) {
        from.weight->read({row, rows, column, columns, 1, stride}, target);
    } else if (from.weight != nullptr) {
        from.weight->read({column, columns, row, rows, stride, 1}, target);
    } else if (from.values.data != nullptr) {
        read_block(from.values.transposed(), column, columns, row, rows, target, stride);
    } else {
        read_block(from.parameters.transposed(), column, columns, row, rows, target, stride);
    }
}

template <class S>
void prefetch_block(const MatrixView<S>& from, std::int64_t row, std::int64_t rows, std::int64_t column,
                    std::int64_t columns) {
    if (from.column_stride == 1) {
        prefetch_rows(from.data + row * from.row_stride + column, rows, columns, from.row_stride);
    }
}

/// Asks the caches for a block that will be read soon, where its rows are contiguous: the processor foresees the other
/// order, which reads long runs, by itself.
template <class T>
void prefetch_block(const MatrixOperand<T, Cpu>& from, std::int64_t row, std::int64_t rows, std::int64_t column,
                    std::int64_t columns) {
    if (from.weight != nullptr) {
        from.weight->prefetch(from.transposed ? WeightBlock{row, rows, column, columns, 0, 1}
                                              : WeightBlock{column, columns, row, rows, 1, 0});
    } else if (from.values.data != nullptr) {
        prefetch_block(from.values, row, rows, column, columns);
    } else {
        prefetch_block(from.parameters, row, rows, column, columns);
    }
}

/// Whether neighbours in a row of the factor are neighbours in memory.
template <class T>
bool rows_are_contiguous(const MatrixOperand<T, Cpu>& from) {
    if (from.weight != nullptr) {
        return (from.weight->layout() == Orientation::out_in) == from.transposed;
    }
    return (from.values.data != nullptr ? from.values.column_stride : from.parameters.column_stride) == 1;
}

} // namespace lowrank::detail
