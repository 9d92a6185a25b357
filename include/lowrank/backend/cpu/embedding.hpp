// Rows of an embedding table by index, and the sum of gradients back into them, on the host.
#pragma once

#include <cstdint>

#include "lowrank/backend/cpu/arithmetic.hpp"
#include "lowrank/tensor/weight.hpp"

namespace lowrank {

/// y[i, :] = table[ids[i], :] for rows of n elements.
template <class C, class T>
void embedding_rows(Cpu, std::int64_t count, std::int64_t n, const std::int32_t* ids, const C* table, T* y) {
    parallel_chunks(count, 64, [=](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            const C* row = table + ids[i] * n;
            for (std::int64_t j = 0; j < n; ++j) {
                y[i * n + j] = convert<T>(row[j]);
            }
        }
    });
}

/// The same from a frozen weight [rows, n] of any storage.
template <class T>
void embedding_rows(Cpu, std::int64_t count, const std::int32_t* ids, const Weight<Cpu>& table, T* y) {
    const std::int64_t n = table.in();
    parallel_chunks(count, 64, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            table.read({ids[i], 1, 0, n, n, 1}, y + i * n);
        }
    });
}

/// dtable[ids[i], :] += dy[i, :], for a table that was zeroed. Columns are shared out, and each adds the rows in their
/// order, so that repeated ids sum the same way on any number of threads.
template <class C, class T>
void embedding_backward(Cpu, std::int64_t count, std::int64_t n, const std::int32_t* ids, const T* dy, C* dtable) {
    parallel_chunks(n, 64, [=](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = 0; i < count; ++i) {
            C* row = dtable + ids[i] * n;
            for (std::int64_t j = begin; j < end; ++j) {
                row[j] += convert<C>(dy[i * n + j]);
            }
        }
    });
}

} // namespace lowrank
