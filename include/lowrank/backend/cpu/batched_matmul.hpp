// Batches of strided matrix products on the host.
#pragma once

#include <cstdint>
#include <span>

#include "lowrank/backend/cpu/matmul.hpp"

namespace lowrank {

/// y [..., m, n] (row-major, of shape `shape`) = a [..., m, k] · b [..., k, n], where the strides of a and b have
/// shape's rank and are 0 where a batch repeats.
template <class T>
void batched_matmul(Cpu, const Shape& shape, std::int64_t k, const T* a, const Strides& a_strides, const T* b,
                    const Strides& b_strides, T* y) {
    const int batch_rank = shape.rank() - 2;
    const std::int64_t m = shape[batch_rank], n = shape[batch_rank + 1];
    std::int64_t batch = 1;
    for (int i = 0; i < batch_rank; ++i) {
        batch *= shape[i];
    }
    const auto multiply = [&](std::int64_t index) {
        std::int64_t a_offset = 0, b_offset = 0;
        for (std::int64_t rest = index, i = batch_rank - 1; i >= 0; --i) {
            const std::int64_t position = rest % shape[static_cast<int>(i)];
            rest /= shape[static_cast<int>(i)];
            a_offset += position * a_strides[static_cast<int>(i)];
            b_offset += position * b_strides[static_cast<int>(i)];
        }
        const MatrixView<T> left(a + a_offset, a_strides[batch_rank], a_strides[batch_rank + 1]);
        const MatrixView<T> right(b + b_offset, b_strides[batch_rank], b_strides[batch_rank + 1]);
        const MatmulSegment<T, Cpu> segment{left, {right}, k};
        matmul(Cpu{}, m, n, std::span(&segment, 1), y + index * m * n, MatmulEpilogue<T, T>{});
    };
    constexpr std::int64_t large = 1 << 22; // products of this many multiplications fill all threads by themselves
    if (batch == 1 || m * n * k >= large) {
        for (std::int64_t index = 0; index < batch; ++index) {
            multiply(index);
        }
    } else {
        parallel_for(batch, multiply);
    }
}

} // namespace lowrank
