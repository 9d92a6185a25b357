// Copies, conversions and sums of strided tensors on the host: what autograd itself needs.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>

#include "lowrank/backend/cpu/strided_loop.hpp"
#include "lowrank/core/device.hpp"
#include "lowrank/core/scalar.hpp"
#include "lowrank/simd/dispatch.hpp"
#include "lowrank/simd/memory.hpp"
#include "lowrank/tensor/copy_block.hpp"

namespace lowrank {

namespace detail {

/// Types that vectors of compute_t<T> are loaded from and stored to.
template <class T>
concept Packable = std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, bf16>;

/// to[i] = from[i], between float and bf16.
struct ConvertRun {
    template <int Width, class From, class To>
    LOWRANK_INLINE static void run(const From* from, To* to, std::int64_t n) {
        using V = simd::Vec<float, Width>;
        std::int64_t i = 0;
        for (; i + Width <= n; i += Width) {
            simd::store(simd::load<V>(from + i), to + i);
        }
        for (; i < n; ++i) {
            to[i] = static_cast<To>(static_cast<float>(from[i]));
        }
    }
};

/// to[i] += from[i].
struct AddRun {
    template <int Width, class T>
    LOWRANK_INLINE static void run(const T* from, T* to, std::int64_t n) {
        using C = compute_t<T>;
        using V = simd::Vec<C, sizeof(C) == 8 ? Width / 2 : Width>;
        std::int64_t i = 0;
        for (; i + V::size <= n; i += V::size) {
            simd::store(simd::load<V>(to + i) + simd::load<V>(from + i), to + i);
        }
        for (; i < n; ++i) {
            to[i] = static_cast<T>(static_cast<C>(to[i]) + static_cast<C>(from[i]));
        }
    }
};

/// copy_strided for a source that steps by one through the dimension `dim`, not the last: by blocks of that and the
/// last one, so that both sides use whole lines of memory.
template <class From, class To>
void copy_transposed(const Shape& shape, const From* from, const Strides& strides, To* to, int dim) {
    constexpr std::int64_t rows = 64, columns = 1024; // of a block of the target
    const int last = shape.rank() - 1;
    const Strides to_strides = row_major(shape);
    const auto step = [=](int i) { return i == dim ? rows : i == last ? columns : 1; };
    Shape blocks = shape;
    blocks[dim] = (shape[dim] + rows - 1) / rows;
    blocks[last] = (shape[last] + columns - 1) / columns;
    const std::int64_t count = numel(blocks),
                       grain = elementwise_grain / std::max<std::int64_t>(1, numel(shape) / count);
    parallel_chunks(count, std::max<std::int64_t>(1, grain), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t block = begin; block < end; ++block) {
            const From* source = from;
            To* target = to;
            Shape left = shape; // from the block on
            std::int64_t index = block;
            for (int i = last; i >= 0; --i) {
                const std::int64_t position = index % blocks[i] * step(i);
                index /= blocks[i];
                left[i] -= position;
                source += position * strides[i];
                target += position * to_strides[i];
            }
            copy_block(std::min(columns, left[last]), std::min(rows, left[dim]), source, strides[last], target, 1,
                       to_strides[dim]);
        }
    });
}

} // namespace detail

/// Writes a strided source, converted, to row-major memory.
template <class From, class To>
void copy_strided(Cpu, const Shape& shape, const From* from, const Strides& strides, To* to) {
    for (int dim = 0; dim + 1 < shape.rank(); ++dim) {
        if (strides[dim] == 1 && shape[dim] >= 8 && shape[shape.rank() - 1] >= 8 && numel(shape) > 0) {
            return detail::copy_transposed(shape, from, strides, to, dim);
        }
    }
    strided_loop<2>(shape, {strides, row_major(shape)}, [=](const auto& offset, const auto& step, std::int64_t n) {
        const From* source = from + offset[0];
        To* target = to + offset[1];
        if (step[0] == 1) {
            if constexpr (std::same_as<From, To>) {
                std::copy(source, source + n, target);
                return;
            } else if constexpr (detail::Packable<From> && detail::Packable<To> && sizeof(From) + sizeof(To) == 6) {
                simd::run_for_isa<detail::ConvertRun>(source, target, n);
                return;
            }
        }
        if (step[0] == 0) {
            std::fill_n(target, n, convert<To>(*source));
            return;
        }
        for (std::int64_t i = 0; i < n; ++i) {
            target[i] = convert<To>(source[i * step[0]]);
        }
    });
}

/// Adds a strided source to row-major memory.
template <class T>
void add_strided(Cpu, const Shape& shape, const T* from, const Strides& strides, T* to) {
    using C = compute_t<T>;
    strided_loop<2>(shape, {strides, row_major(shape)}, [=](const auto& offset, const auto& step, std::int64_t n) {
        const T* source = from + offset[0];
        T* target = to + offset[1];
        if constexpr (detail::Packable<T>) {
            if (step[0] == 1) {
                simd::run_for_isa<detail::AddRun>(source, target, n);
                return;
            }
        }
        for (std::int64_t i = 0; i < n; ++i) {
            target[i] = static_cast<T>(static_cast<C>(target[i]) + static_cast<C>(source[i * step[0]]));
        }
    });
}

/// Writes row-major memory into a strided target (the reverse of copy_strided). The target's elements are distinct.
template <class T>
void scatter_strided(Cpu, const Shape& shape, const T* from, T* to, const Strides& strides) {
    strided_loop<2>(shape, {row_major(shape), strides}, [=](const auto& offset, const auto& step, std::int64_t n) {
        const T* source = from + offset[0];
        T* target = to + offset[1];
        if (step[0] == 1 && step[1] == 1) {
            std::copy_n(source, n, target);
            return;
        }
        for (std::int64_t i = 0; i < n; ++i) {
            target[i * step[1]] = source[i * step[0]];
        }
    });
}

} // namespace lowrank
