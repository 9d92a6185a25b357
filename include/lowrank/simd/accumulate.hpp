// Adding products to sums that stay in registers: the one step that the matrix product repeats.
#pragma once

#include "lowrank/simd/vec.hpp"

namespace lowrank::simd {

namespace detail {
/// Whether a vector's step is one instruction, spelled out: where a hyperthread takes half of a core's issue slots, a
/// product runs at the rate of its instructions, and g++ 12 copies sums between registers and never lets a
/// multiplication read a factor from memory that is needed more than once. clang refuses such registers where no flag
/// or attribute of the function around it asks for AVX-512.
#if defined(__x86_64__) && (!defined(__clang__) || defined(__AVX512F__))
template <class S, int N>
inline constexpr bool is_spelled_out = Vec<S, N>::bytes == 64;
#else
template <class S, int N>
inline constexpr bool is_spelled_out = false;
#endif
} // namespace detail

/// sum += x·y, rounded once where the instruction set can.
template <class S, int N>
LOWRANK_INLINE Vec<S, N> accumulate(Vec<S, N> sum, Vec<S, N> x, Vec<S, N> y) {
    if constexpr (!detail::is_spelled_out<S, N>) {
        return fma(x, y, sum);
    } else {
        if constexpr (sizeof(S) == 4) {
            asm("vfmadd231ps {%2, %1, %0|%0, %1, %2}" : "+v"(sum.v) : "v"(x.v), "v"(y.v));
        } else {
            asm("vfmadd231pd {%2, %1, %0|%0, %1, %2}" : "+v"(sum.v) : "v"(x.v), "v"(y.v));
        }
        return sum;
    }
}

/// sum += *x·y, with x read by the multiplication itself where the instruction set can.
template <class S, int N>
LOWRANK_INLINE Vec<S, N> accumulate(Vec<S, N> sum, const S* x, Vec<S, N> y) {
    if constexpr (!detail::is_spelled_out<S, N>) {
        return fma(Vec<S, N>(*x), y, sum);
    } else {
        if constexpr (sizeof(S) == 4) {
            asm("vfmadd231ps {%2%{1to16%}, %1, %0|%0, %1, %2%{1to16%}}" : "+v"(sum.v) : "v"(y.v), "m"(*x));
        } else {
            asm("vfmadd231pd {%2%{1to8%}, %1, %0|%0, %1, %2%{1to8%}}" : "+v"(sum.v) : "v"(y.v), "m"(*x));
        }
        return sum;
    }
}

/// Whether accumulate_pairs exists for this compiler and these flags.
template <int N>
inline constexpr bool has_pairs = detail::is_spelled_out<float, N>;

/// sum += x₀·y₀ + x₁·y₁ for lanes that hold two bf16 each: AVX512-BF16's product, which counts subnormals as zero.
template <int N>
LOWRANK_INLINE Vec<float, N> accumulate_pairs(Vec<float, N> sum, Vec<float, N> x, Vec<float, N> y) {
    if constexpr (has_pairs<N>) {
        asm("vdpbf16ps {%2, %1, %0|%0, %1, %2}" : "+v"(sum.v) : "v"(x.v), "v"(y.v));
    }
    return sum;
}

/// The same with x read by the multiplication itself.
template <int N>
LOWRANK_INLINE Vec<float, N> accumulate_pairs(Vec<float, N> sum, const float* x, Vec<float, N> y) {
    if constexpr (has_pairs<N>) {
        asm("vdpbf16ps {%2%{1to16%}, %1, %0|%0, %1, %2%{1to16%}}" : "+v"(sum.v) : "v"(y.v), "m"(*x));
    }
    return sum;
}

} // namespace lowrank::simd
