// The vector type that kernels are written with: N lanes of float or double, of any width, on any instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

// Everything here is always_inline and has no target attribute: it takes the instruction set of the kernel that it is
// inlined into (dispatch.hpp). Vectors are aligned to 16 bytes at most, whatever their width: g++ then has nothing to
// note about how they would be passed, and loads on current CPUs do not care.
#define LOWRANK_INLINE __attribute__((always_inline)) inline

// g++ 12 builds a broadcast lane by lane unless it stays behind a barrier until it is inlined into a
// function that has the vector's width.
#if defined(__GNUC__) && !defined(__clang__)
#define LOWRANK_BROADCAST(value) __builtin_assoc_barrier(value)
#else
#define LOWRANK_BROADCAST(value) (value)
#endif

namespace lowrank::simd {

/// The outcome of comparing two Vec<S, N>, lane by lane: all bits set, or none.
template <class S, int N>
struct Mask {
    static constexpr int bytes = sizeof(S) * N, alignment = bytes < 16 ? bytes : 16;
    using integer = std::conditional_t<sizeof(S) == 4, std::int32_t, std::int64_t>;
    typedef integer type __attribute__((vector_size(bytes), aligned(alignment)));
    type v;

    LOWRANK_INLINE bool operator[](int lane) const { return v[lane] != 0; }
    LOWRANK_INLINE friend Mask operator&(Mask a, Mask b) { return {a.v & b.v}; }
    LOWRANK_INLINE friend Mask operator|(Mask a, Mask b) { return {a.v | b.v}; }
    LOWRANK_INLINE friend Mask operator!(Mask a) { return {~a.v}; }
};

/// N lanes of S (float or double; N a power of two). Arithmetic is lane by lane; a scalar converts to N equal lanes.
template <class S, int N>
struct Vec {
    using scalar = S;
    using mask = Mask<S, N>;
    using integer = typename mask::integer;
    using natural = std::make_unsigned_t<integer>;
    static constexpr int size = N, bytes = mask::bytes, alignment = mask::alignment;
    typedef S type __attribute__((vector_size(bytes), aligned(alignment)));           ///< the compiler's vector
    typedef integer integers __attribute__((vector_size(bytes), aligned(alignment))); ///< what its bits cast to, signed
    typedef natural naturals
        __attribute__((vector_size(bytes), aligned(alignment))); ///< what its bits cast to, unsigned

    /// A compiler's vector on its way into a Vec: wrapped, since clang refuses naked ones as arguments.
    struct Raw {
        type v;
    };

    type v;

    Vec() = default;
    LOWRANK_INLINE Vec(S all) : v(LOWRANK_BROADCAST(all - type{})) {} // x - 0 is x, even for x = -0
    LOWRANK_INLINE Vec(Raw raw) : v(raw.v) {}
    /// The lanes that have these bits: the reverse of the cast `(naturals)x.v`.
    LOWRANK_INLINE static Vec from_bits(const naturals& bits) { return Raw{(type)bits}; }

    LOWRANK_INLINE S operator[](int lane) const { return v[lane]; }

    LOWRANK_INLINE friend Vec operator+(Vec a, Vec b) { return Raw{a.v + b.v}; }
    LOWRANK_INLINE friend Vec operator-(Vec a, Vec b) { return Raw{a.v - b.v}; }
    LOWRANK_INLINE friend Vec operator*(Vec a, Vec b) { return Raw{a.v * b.v}; }
    LOWRANK_INLINE friend Vec operator/(Vec a, Vec b) { return Raw{a.v / b.v}; }
    LOWRANK_INLINE friend Vec operator-(Vec a) { return Raw{-a.v}; }
    LOWRANK_INLINE Vec& operator+=(Vec b) { return v += b.v, *this; }
    LOWRANK_INLINE Vec& operator-=(Vec b) { return v -= b.v, *this; }
    LOWRANK_INLINE Vec& operator*=(Vec b) { return v *= b.v, *this; }
    LOWRANK_INLINE Vec& operator/=(Vec b) { return v /= b.v, *this; }

    LOWRANK_INLINE friend mask operator<(Vec a, Vec b) { return {a.v < b.v}; }
    LOWRANK_INLINE friend mask operator>(Vec a, Vec b) { return {a.v > b.v}; }
    LOWRANK_INLINE friend mask operator<=(Vec a, Vec b) { return {a.v <= b.v}; }
    LOWRANK_INLINE friend mask operator>=(Vec a, Vec b) { return {a.v >= b.v}; }
    LOWRANK_INLINE friend mask operator==(Vec a, Vec b) { return {a.v == b.v}; }
    LOWRANK_INLINE friend mask operator!=(Vec a, Vec b) { return {a.v != b.v}; }

    /// a·b + c, rounded once where the instruction set can. One expression, so that every compiler contracts it.
    LOWRANK_INLINE friend Vec fma(Vec a, Vec b, Vec c) { return Raw{a.v * b.v + c.v}; }
    /// Lanes of a where m is set, of b elsewhere. By bits: g++ 12 merges nested ?: and then goes lane by lane.
    LOWRANK_INLINE friend Vec select(mask m, Vec a, Vec b) {
        return from_bits(((naturals)a.v & (naturals)m.v) | ((naturals)b.v & ~(naturals)m.v));
    }
    /// The smaller; a where either is NaN (so a NaN in a is kept).
    LOWRANK_INLINE friend Vec min(Vec a, Vec b) { return Raw{b.v < a.v ? b.v : a.v}; }
    /// The larger; a where either is NaN (so a NaN in a is kept).
    LOWRANK_INLINE friend Vec max(Vec a, Vec b) { return Raw{b.v > a.v ? b.v : a.v}; }
    LOWRANK_INLINE friend Vec abs(Vec a) { return from_bits((naturals)a.v & ~sign_bit); }
    /// The magnitude of a with the sign of b.
    LOWRANK_INLINE friend Vec copysign(Vec a, Vec b) {
        return from_bits(((naturals)a.v & ~sign_bit) | ((naturals)b.v & sign_bit));
    }

  private:
    static constexpr natural sign_bit = natural(1) << (sizeof(S) * 8 - 1);
};

namespace detail {
template <int Offset, class S, int N, int... I>
LOWRANK_INLINE Vec<S, sizeof...(I)> lanes(Vec<S, N> a, std::integer_sequence<int, I...>) {
    return typename Vec<S, sizeof...(I)>::Raw{__builtin_shufflevector(a.v, a.v, (Offset + I)...)};
}
template <class S, int N, int... I>
LOWRANK_INLINE Vec<S, 2 * N> joined(Vec<S, N> a, Vec<S, N> b, std::integer_sequence<int, I...>) {
    return typename Vec<S, 2 * N>::Raw{__builtin_shufflevector(a.v, b.v, I...)};
}
} // namespace detail

/// The first and the second half of the lanes, and two halves as one vector.
template <class S, int N>
LOWRANK_INLINE Vec<S, N / 2> lower_half(Vec<S, N> a) {
    return detail::lanes<0>(a, std::make_integer_sequence<int, N / 2>());
}
template <class S, int N>
LOWRANK_INLINE Vec<S, N / 2> upper_half(Vec<S, N> a) {
    return detail::lanes<N / 2>(a, std::make_integer_sequence<int, N / 2>());
}
template <class S, int N>
LOWRANK_INLINE Vec<S, 2 * N> join(Vec<S, N> a, Vec<S, N> b) {
    return detail::joined(a, b, std::make_integer_sequence<int, 2 * N>());
}

/// The sum of the lanes: lane i plus lane i + N/2, and so on down to one.
template <class S, int N>
LOWRANK_INLINE S reduce_add(Vec<S, N> a) {
    if constexpr (N == 1) {
        return a[0];
    } else if constexpr (N == 2) {
        return a[0] + a[1];
    } else {
        return reduce_add(lower_half(a) + upper_half(a));
    }
}

/// The largest lane. Unspecified where a lane is NaN.
template <class S, int N>
LOWRANK_INLINE S reduce_max(Vec<S, N> a) {
    if constexpr (N == 1) {
        return a[0];
    } else if constexpr (N == 2) {
        return a[0] < a[1] ? a[1] : a[0];
    } else {
        return reduce_max(max(lower_half(a), upper_half(a)));
    }
}

/// The square root, correctly rounded. By 128-bit pieces: the one width whose instruction is always there, and no
/// slower.
template <class S, int N>
LOWRANK_INLINE Vec<S, N> sqrt(Vec<S, N> a) {
    if constexpr (sizeof(a) > 16) {
        return join(sqrt(lower_half(a)), sqrt(upper_half(a)));
#if defined(__SSE2__)
    } else if constexpr (sizeof(a) == 16 && sizeof(S) == 4) {
        return typename Vec<S, N>::Raw{(typename Vec<S, N>::type)_mm_sqrt_ps((__m128)a.v)};
    } else if constexpr (sizeof(a) == 16) {
        return typename Vec<S, N>::Raw{(typename Vec<S, N>::type)_mm_sqrt_pd((__m128d)a.v)};
#elif defined(__aarch64__)
    } else if constexpr (sizeof(a) == 16 && sizeof(S) == 4) {
        return typename Vec<S, N>::Raw{(typename Vec<S, N>::type)vsqrtq_f32((float32x4_t)a.v)};
    } else if constexpr (sizeof(a) == 16) {
        return typename Vec<S, N>::Raw{(typename Vec<S, N>::type)vsqrtq_f64((float64x2_t)a.v)};
#endif
    } else {
        for (int i = 0; i < N; ++i) {
            a.v[i] = sizeof(S) == 4 ? __builtin_sqrtf(a.v[i]) : __builtin_sqrt(a.v[i]);
        }
        return a;
    }
}

} // namespace lowrank::simd
