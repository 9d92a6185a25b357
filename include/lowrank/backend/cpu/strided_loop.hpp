// Walking several strided operands of one shape together: dimensions that can be merged are, rows run in parallel.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "lowrank/core/parallel.hpp"
#include "lowrank/core/shape.hpp"

namespace lowrank {

/// Elements that one task of an elementwise loop handles: enough to pay for handing it out.
inline constexpr std::int64_t elementwise_grain = 16384;

namespace detail {

/// The loop behind strided_loop: one piece of code for all bodies, so that these stay cheap to compile.
inline void strided_runs(const Shape& shape, const Strides* operands, int count,
                         void (*body)(const void*, const std::int64_t*, const std::int64_t*, std::int64_t),
                         const void* context) {
    constexpr int most = 8; // operands
    if (numel(shape) == 0) {
        return;
    }
    // Merge neighbouring dimensions where every operand steps evenly through both.
    Shape extents;
    std::array<Strides, most> strides;
    for (int i = 0; i < shape.rank(); ++i) {
        if (shape[i] == 1) {
            continue;
        }
        const int last = extents.rank() - 1;
        bool merge = last >= 0;
        for (int k = 0; k < count && merge; ++k) {
            merge = strides[std::size_t(k)][last] == operands[k][i] * shape[i];
        }
        if (merge) {
            extents[last] *= shape[i];
        } else {
            extents.push_back(shape[i]);
        }
        for (int k = 0; k < count; ++k) {
            Strides& of = strides[std::size_t(k)];
            if (merge) {
                of[last] = operands[k][i];
            } else {
                of.push_back(operands[k][i]);
            }
        }
    }
    if (extents.rank() == 0) {
        extents.push_back(1);
        for (int k = 0; k < count; ++k) {
            strides[std::size_t(k)].push_back(1);
        }
    }
    const int inner = extents.rank() - 1;
    const std::int64_t length = extents[inner], rows = numel(extents) / length;
    std::array<std::int64_t, most> steps{};
    for (int k = 0; k < count; ++k) {
        steps[std::size_t(k)] = strides[std::size_t(k)][inner];
    }
    const std::int64_t pieces = (length + elementwise_grain - 1) / elementwise_grain;
    const std::int64_t grain = std::max<std::int64_t>(1, elementwise_grain / length);
    parallel_chunks(rows * pieces, grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t run = begin; run < end; ++run) {
            const std::int64_t start = run % pieces * elementwise_grain;
            std::array<std::int64_t, most> offsets;
            for (int k = 0; k < count; ++k) {
                offsets[std::size_t(k)] = start * steps[std::size_t(k)];
            }
            std::int64_t index = run / pieces;
            for (int i = inner - 1; i >= 0; --i) {
                const std::int64_t position = index % extents[i];
                index /= extents[i];
                for (int k = 0; k < count; ++k) {
                    offsets[std::size_t(k)] += position * strides[std::size_t(k)][i];
                }
            }
            body(context, offsets.data(), steps.data(), std::min(elementwise_grain, length - start));
        }
    });
}

} // namespace detail

/// Calls `body(offsets, strides, n)` for runs of n elements that together cover `shape`: operand k's run starts at
/// element offsets[k] and has stride strides[k]. Runs are as long as the layouts allow and run in parallel.
template <std::size_t N, class Body>
void strided_loop(const Shape& shape, const std::array<Strides, N>& operands, const Body& body) {
    static_assert(N <= 8);
    detail::strided_runs(
        shape, operands.data(), int(N),
        [](const void* context, const std::int64_t* offsets, const std::int64_t* steps, std::int64_t n) {
            (*static_cast<const Body*>(context))(offsets, steps, n);
        },
        &body);
}

} // namespace lowrank
