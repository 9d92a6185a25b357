// Loads and stores of vectors, with conversion from and to the storage types, and of the lanes left at the end of a
// row.
#pragma once

#include <concepts>
#include <cstdint>

#include "lowrank/core/scalar.hpp"
#include "lowrank/simd/vec.hpp"

namespace lowrank::simd {
namespace detail {

// N values of T in memory: aligned as a T is, and allowed to alias it. Name this type wherever it is used: deduction
// (auto, template arguments) drops the alignment.
template <class T, int N>
struct InMemory {
    typedef T type __attribute__((vector_size(sizeof(T) * N), aligned(alignof(T)), may_alias));
};

// 16-bit values in memory, each in a 32-bit lane. g++ 12 would widen the halves of a vector and put them together,
// where one instruction does, which reads the memory too.
template <int N>
LOWRANK_INLINE Vec<float, N> load_halves(const void* p) {
    using V = Vec<float, N>;
    using naturals = typename V::naturals;
    const auto* halves = static_cast<const typename InMemory<std::uint16_t, N>::type*>(p);
#if defined(__x86_64__) && !defined(__clang__)
    if constexpr (V::bytes >= 32) {
        naturals lanes;
        asm("vpmovzxwd {%1, %0|%0, %1}" : "=v"(lanes) : "m"(*halves));
        return V::from_bits(lanes);
    }
#endif
    return V::from_bits(__builtin_convertvector(*halves, naturals));
}

// fp16 bits in 32-bit lanes to float. 2^112 moves the exponent's bias, and makes subnormals normal.
template <int N>
LOWRANK_INLINE Vec<float, N> from_half(Vec<float, N> half) {
    using V = Vec<float, N>;
    using naturals = typename V::naturals;
    const naturals bits = (naturals)half.v;
    const naturals magnitude = (bits & 0x7fffu) << 13;
    const V finite = V::from_bits(magnitude) * V(0x1p112f);
    const naturals special = magnitude | 0x7f800000u; // infinity, or NaN with its payload
    const naturals value = (naturals)(magnitude >= 0x7c00u << 13) & (special ^ (naturals)finite.v);
    return V::from_bits(((naturals)finite.v ^ value) | ((bits & 0x8000u) << 16));
}

// The bits of float lanes rounded to bf16: to nearest, ties to even. A NaN must have no payload.
template <int N>
LOWRANK_INLINE Vec<float, N> round_plain_to_bf16(Vec<float, N> x) {
    using V = Vec<float, N>;
    const auto bits = (typename V::naturals)x.v;
    return V::from_bits(bits + (0x7fffu + ((bits >> 16) & 1u)));
}

// The same of any lanes; NaN stays NaN.
template <int N>
LOWRANK_INLINE Vec<float, N> round_to_bf16(Vec<float, N> x) {
    using V = Vec<float, N>;
    using naturals = typename V::naturals;
    const naturals quiet = (naturals)x.v | 0x400000u;
    return select(x == x, round_plain_to_bf16(x), V::from_bits(quiet));
}

} // namespace detail

/// The V::size values at p as a vector, in float or double lanes: of double (in double lanes alone), float, bf16 or
/// fp16. p needs no alignment beyond its type's.
template <class V, class T>
LOWRANK_INLINE V load(const T* p) {
    constexpr int n = V::size;
    if constexpr (std::same_as<T, typename V::scalar>) {
        return typename V::Raw{*reinterpret_cast<const typename detail::InMemory<T, n>::type*>(p)};
    } else if constexpr (std::same_as<T, float>) {
        using Lanes = typename V::type;
        return typename V::Raw{
            __builtin_convertvector(*reinterpret_cast<const typename detail::InMemory<float, n>::type*>(p), Lanes)};
    } else if constexpr (std::same_as<typename V::scalar, double>) {
        return typename V::Raw{__builtin_convertvector(load<Vec<float, n>>(p).v, typename V::type)};
    } else {
        static_assert(sizeof(T) == 2, "no such load");
        const V halves = detail::load_halves<n>(p);
        if constexpr (std::same_as<T, bf16>) {
            return V::from_bits((typename V::naturals)halves.v << 16);
        } else {
            return detail::from_half(halves);
        }
    }
}

/// The `count` (at most V::size) values at p as the first lanes of a vector, `fill` in the others. Reads no further.
template <class V, class T>
LOWRANK_INLINE V load(const T* p, std::int64_t count, typename V::scalar fill = 0) {
    if (count == V::size) {
        return load<V>(p);
    }
    V result(fill);
    for (std::int64_t i = 0; i < count; ++i) {
        result.v[i] = convert<typename V::scalar>(p[i]);
    }
    return result;
}

/// Writes the lanes to p as S, or rounded to nearest even as bf16 (from float lanes) or float (from double lanes).
/// p needs no alignment beyond its type's.
template <class T, class S, int N>
LOWRANK_INLINE void store(Vec<S, N> x, T* p) {
    if constexpr (std::same_as<T, S>) {
        *reinterpret_cast<typename detail::InMemory<T, N>::type*>(p) = x.v;
    } else if constexpr (std::same_as<T, float>) {
        using Lanes = typename detail::InMemory<float, N>::type;
        *reinterpret_cast<Lanes*>(p) = __builtin_convertvector(x.v, Lanes);
    } else {
        static_assert(std::same_as<T, bf16> && std::same_as<S, float>, "no such store");
        using Halves = typename detail::InMemory<std::uint16_t, N>::type;
        using naturals = typename Vec<S, N>::naturals;
        *reinterpret_cast<Halves*>(p) = __builtin_convertvector((naturals)detail::round_to_bf16(x).v >> 16, Halves);
    }
}

/// Writes the first `count` (at most N) lanes to p, converted as by the store of all lanes. Writes no further.
template <class T, class S, int N>
LOWRANK_INLINE void store(Vec<S, N> x, T* p, std::int64_t count) {
    if (count == N) {
        return store(x, p);
    }
    for (std::int64_t i = 0; i < count; ++i) {
        p[i] = static_cast<T>(x.v[i]);
    }
}

} // namespace lowrank::simd
