// Copies, conversions and sums of strided tensors on the host: what autograd itself needs.
#pragma once

#include <cstdint>

#include "lowrank/backend/cpu/strided_loop.hpp"
#include "lowrank/core/device.hpp"
#include "lowrank/core/scalar.hpp"

namespace lowrank {

/// Converts between element types; 16-bit ones pass through float.
template <class To, class From>
constexpr To convert(From value) {
    if constexpr (std::same_as<To, From>) {
        return value;
    } else {
        return static_cast<To>(static_cast<compute_t<To>>(static_cast<compute_t<From>>(value)));
    }
}

/// Writes a strided source, converted, to row-major memory.
template <class From, class To>
void copy_strided(Cpu, const Shape& shape, const From* from, const Strides& strides, To* to) {
    strided_loop<2>(shape, {strides, row_major(shape)}, [=](const auto& offset, const auto& step, std::int64_t n) {
        const From* source = from + offset[0];
        To* target = to + offset[1];
        if (step[0] == 1) {
            for (std::int64_t i = 0; i < n; ++i) {
                target[i] = convert<To>(source[i]);
            }
        } else {
            for (std::int64_t i = 0; i < n; ++i) {
                target[i] = convert<To>(source[i * step[0]]);
            }
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
        if (step[0] == 1) {
            for (std::int64_t i = 0; i < n; ++i) {
                target[i] = static_cast<T>(static_cast<C>(target[i]) + static_cast<C>(source[i]));
            }
        } else {
            for (std::int64_t i = 0; i < n; ++i) {
                target[i] = static_cast<T>(static_cast<C>(target[i]) + static_cast<C>(source[i * step[0]]));
            }
        }
    });
}

/// Writes row-major memory into a strided target (the reverse of copy_strided). The target's elements are distinct.
template <class T>
void scatter_strided(Cpu, const Shape& shape, const T* from, T* to, const Strides& strides) {
    strided_loop<2>(shape, {row_major(shape), strides}, [=](const auto& offset, const auto& step, std::int64_t n) {
        for (std::int64_t i = 0; i < n; ++i) {
            to[offset[1] + i * step[1]] = from[offset[0] + i * step[0]];
        }
    });
}

} // namespace lowrank
