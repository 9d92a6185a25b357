// Powers of vectors.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "lowrank/simd/functions.hpp"

namespace lowrank::simd {
namespace detail {

/// The bits of 2^52, from which on a double's last place is 1: a number below, put into its low bits, is added.
inline constexpr std::uint64_t two_to_52_bits = 0x4330000000000000u;

/// log2 of x, 0 or more, within 2^-44 of its magnitude. With x = 2^e · m, m between √½ and √2, and s = (m - 1)/(m + 1),
/// log2(x) = e + 2 / ln 2 · (s + s³/3 + s⁵/5 + …).
template <int N>
LOWRANK_INLINE Vec<double, N> log2_of_magnitude(Vec<double, N> x) {
    using V = Vec<double, N>;
    using naturals = typename V::naturals;
    constexpr double infinity = std::numeric_limits<double>::infinity(), first = 2.8853900817779268; // 2 / ln 2
    constexpr std::uint64_t root_of_half = 0x3fe6a09e667f3bcdu;
    const auto bits = (naturals)x.v;
    const naturals biased = (bits - (root_of_half - (1023ull << 52))) >> 52; // e + 1023
    const V m = V::from_bits(bits - ((biased - 1023) << 52));
    const V e = V::from_bits(biased | two_to_52_bits) - V(0x1p52 + 1023);
    const V s = (m - V(1.0)) / (m + V(1.0));
    const V square = s * s, fourth = square * square; // two short chains of multiplications instead of a long one
    const V even = polynomial(fourth, V(first), V(first / 5), V(first / 9), V(first / 13));
    const V odd = polynomial(fourth, V(first / 3), V(first / 7), V(first / 11), V(first / 15));
    const V found = fma(s, fma(odd, square, even), e);
    return select(x == V(0.0), V(-infinity), select(x == V(infinity), x, found));
}

/// 2^x within 2^-41 of its magnitude for x between -200 and 200, and for others that of the nearer end.
template <int N>
LOWRANK_INLINE Vec<double, N> exp2_of_float_range(Vec<double, N> x) {
    using V = Vec<double, N>;
    using naturals = typename V::naturals;
    constexpr double round = 0x1.8p52;
    x = max(min(x, V(200.0)), V(-200.0));
    const naturals n = (naturals)(x + V(round)).v - (naturals)V(round).v; // as in split_exp, in two's complement
    const V whole = V::from_bits((n + 1024) | two_to_52_bits) - V(0x1p52 + 1024);
    const V r = (x - whole) * V(0.69314718055994531);
    const V square = r * r;
    const V even = polynomial(square, V(1.0), V(1.0 / 2), V(1.0 / 24), V(1.0 / 720), V(1.0 / 40320), V(1.0 / 3628800));
    const V odd = polynomial(square, V(1.0), V(1.0 / 6), V(1.0 / 120), V(1.0 / 5040), V(1.0 / 362880));
    const V e_to_r = fma(odd, r, even);
    return e_to_r * V::from_bits((n + 1023) << 52);
}

/// x^y for a finite y and x of 0 or more, computed in double.
template <int N>
LOWRANK_INLINE Vec<float, N> pow_of_magnitude(Vec<float, N> x, Vec<float, N> y) {
    using V = Vec<float, N>;
    using D = Vec<double, N>;
    const D base = typename D::Raw{__builtin_convertvector(x.v, typename D::type)};
    const D exponent = typename D::Raw{__builtin_convertvector(y.v, typename D::type)};
    const D power = exp2_of_float_range(exponent * log2_of_magnitude(base));
    return typename V::Raw{__builtin_convertvector(power.v, typename V::type)};
}

} // namespace detail

/// x to the power y, within 1 ULP, with the C library's special cases: NaN for a negative x and a y that is no integer,
/// 1 for y = 0 and for x = 1 whatever the other is. It is computed in double, for exp of a multiple of log would lose
/// digits in fp32; up to four lanes and in double it is the C library's function, which is no slower for so few.
template <class S, int N>
LOWRANK_INLINE Vec<S, N> pow(Vec<S, N> x, Vec<S, N> y) {
    using V = Vec<S, N>;
    if constexpr (sizeof(S) == 8 || N <= 4) {
        for (int i = 0; i < N; ++i) {
            x.v[i] = std::pow(x.v[i], y.v[i]);
        }
        return x;
    } else {
        constexpr float infinity = std::numeric_limits<float>::infinity();
        const V base = abs(x), finite = max(min(y, V(0x1p100f)), V(-0x1p100f)); // so that 1 to it is 1
        V result = join(detail::pow_of_magnitude(lower_half(base), lower_half(finite)),
                        detail::pow_of_magnitude(upper_half(base), upper_half(finite)));
        const V size = min(abs(y), V(0x1p24f)); // from there on every float is an even number
        const auto n = __builtin_convertvector(size.v, typename V::integers);
        const auto is_integer = V(typename V::Raw{__builtin_convertvector(n, typename V::type)}) == size;
        const typename V::mask is_odd{(n & 1) != 0}, is_negative{(typename V::integers)x.v < 0};
        result = select(is_integer & is_odd & is_negative, -result, result);
        const auto has_none = (x < V(0.0f)) & (x > V(-infinity)) & !is_integer;
        result = select(has_none | (x != x) | (y != y), V(std::numeric_limits<float>::quiet_NaN()), result);
        return select((x == V(1.0f)) | (y == V(0.0f)), V(1.0f), result);
    }
}

} // namespace lowrank::simd
