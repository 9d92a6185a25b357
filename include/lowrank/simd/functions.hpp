// exp, log, tanh and erf of vectors, each within a stated number of units in the last place.
#pragma once

#include <cmath>
#include <limits>

#include "lowrank/simd/vec.hpp"

namespace lowrank::simd {

// The float versions below hold their budget over all floats, on every instruction set, subnormal arguments and results
// included. ULP: units in the last place of the exact result. Under -ffast-math, NaN, infinities, -0 and subnormals are
// not kept. The double versions call the C library lane by lane. Coefficients: tests/scripts/fit_simd_polynomials.py.

namespace detail {

// c0 + c1·x + c2·x² + …
template <class V>
LOWRANK_INLINE V polynomial(V, V c) {
    return c;
}
template <class V, class... Rest>
LOWRANK_INLINE V polynomial(V x, V c, Rest... rest) {
    return fma(polynomial(x, rest...), x, c);
}

// ln 2 as a sum whose first part has few enough bits that multiples of it are exact.
inline constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;

// e^x as 2^n · e^r, with n the integer nearest to x / ln 2.
template <class V>
struct SplitExp {
    typename V::naturals n; // in two's complement
    V e_to_r;
};

// n is the low bits of a float near 1.5 · 2^23. It is read from these bits, since -ffast-math would undo the rounding
// of `shifted - round`.
template <class V>
LOWRANK_INLINE SplitExp<V> split_exp(V x) {
    constexpr float round = 0x1.8p23f;
    const V shifted = fma(x, V(1.44269504f), V(round));
    const typename V::naturals whole = (typename V::naturals)shifted.v - (typename V::naturals)V(round).v;
    const V n = typename V::Raw{__builtin_convertvector((typename V::integers)whole, typename V::type)};
    const V r = fma(n, V(-ln2_low), fma(n, V(-ln2_high), x));
    const V p = polynomial(r, V(0.5f), V(0.166666657f), V(0.0416662954f), V(0.00833349768f), V(0.00139446883f),
                           V(0.000197903122f));
    return {whole, fma(r * r, p, r) + V(1.0f)};
}

} // namespace detail

/// e^x, within 2 ULP; infinity above 88.72, subnormal below -87.34, 0 below -103.97.
template <int N>
LOWRANK_INLINE Vec<float, N> exp(Vec<float, N> x) {
    using V = Vec<float, N>;
    using integers = typename V::integers;
    using naturals = typename V::naturals;
    const auto split = detail::split_exp(max(min(x, V(89.0f)), V(-104.0f)));
    // 2^n as two factors, since it may not be a float itself.
    const naturals half = (naturals)((integers)split.n >> 1);
    const V first = V::from_bits((half + 127) << 23);
    const V second = V::from_bits((split.n - half + 127) << 23);
    return split.e_to_r * first * second;
}

/// e^x for x up to 88, within 2 ULP above -87 and 0 below: what a softmax needs, cheaper than exp. NaN stays NaN.
template <int N>
LOWRANK_INLINE Vec<float, N> softmax_exp(Vec<float, N> x) {
    using V = Vec<float, N>;
    constexpr float least = -87.0f;
    const auto split = detail::split_exp(max(x, V(least)));
    return select(x < V(least), V(0.0f), V::from_bits((split.n + 127) << 23) * split.e_to_r);
}

/// The natural logarithm, within 2 ULP; -infinity at 0, NaN below.
template <int N>
LOWRANK_INLINE Vec<float, N> log(Vec<float, N> x) {
    using V = Vec<float, N>;
    using integers = typename V::integers;
    using naturals = typename V::naturals;
    constexpr float infinity = std::numeric_limits<float>::infinity();
    const auto subnormal = x < V(0x1p-126f);
    const V scaled = select(subnormal, x * V(0x1p23f), x);
    // x = 2^e · (1 + f), with 1 + f between sqrt(1/2), which is 0x3f3504f3, and sqrt(2).
    const naturals bits = (naturals)scaled.v;
    const integers exponent = (integers)(bits - 0x3f3504f3u) >> 23;
    const V f = V::from_bits(bits - ((naturals)exponent << 23)) - V(1.0f);
    const V e =
        V(typename V::Raw{__builtin_convertvector(exponent, typename V::type)}) - select(subnormal, V(23.0f), V(0.0f));
    const V p = detail::polynomial(f, V(0.333333135f), V(-0.250000089f), V(0.200021192f), V(-0.166679859f),
                                   V(0.14219521f), V(-0.124057531f), V(0.11888589f), V(-0.116748199f), V(0.0674459f));
    const V square = f * f;
    V tail = fma(f * square, p, e * V(detail::ln2_low));
    tail = fma(square, V(-0.5f), tail);
    const V result = select(x < V(infinity), fma(e, V(detail::ln2_high), f + tail), x);
    return select(x <= V(0.0f), select(x < V(0.0f), V(std::numeric_limits<float>::quiet_NaN()), V(-infinity)), result);
}

/// The hyperbolic tangent, within 3 ULP.
template <int N>
LOWRANK_INLINE Vec<float, N> tanh(Vec<float, N> x) {
    using V = Vec<float, N>;
    const V magnitude = abs(x), square = x * x;
    const V p = detail::polynomial(square, V(-0.333332807f), V(0.133314401f), V(-0.0537395254f), V(0.0206384342f),
                                   V(-0.0057042269f));
    const V small = fma(square * x, p, x);
    const V large = V(1.0f) - V(2.0f) / (exp(magnitude + magnitude) + V(1.0f));
    return copysign(select(magnitude < V(0.625f), small, large), x); // also of small: -0 + 0 is 0
}

/// The error function, within 4 ULP.
template <int N>
LOWRANK_INLINE Vec<float, N> erf(Vec<float, N> x) {
    using V = Vec<float, N>;
    const V magnitude = abs(x), square = x * x;
    const V p = detail::polynomial(square, V(0.128379151f), V(-0.37612468f), V(0.112815507f), V(-0.0267569777f),
                                   V(0.00497904513f), V(-0.000591898686f));
    const V t = min(magnitude, V(4.0f)); // where 1 - erf is less than half an ULP
    const V q = detail::polynomial(t, V(0.128658459f), V(0.635110974f), V(0.106303282f), V(-0.0238190405f),
                                   V(0.00366930268f), V(-0.000329384027f), V(1.18867174e-05f));
    const V large = V(1.0f) - exp(-fma(t, q, t));
    return select(magnitude < V(0.9375f), fma(x, p, x), copysign(large, x));
}

namespace detail {

using ScalarFunction = double(double);

template <ScalarFunction function, int N>
LOWRANK_INLINE Vec<double, N> lane_by_lane(Vec<double, N> x) {
    for (int i = 0; i < N; ++i) {
        x.v[i] = function(x.v[i]);
    }
    return x;
}

} // namespace detail

/// As the C library's functions of double.
template <int N>
LOWRANK_INLINE Vec<double, N> exp(Vec<double, N> x) {
    return detail::lane_by_lane<::exp>(x);
}
template <int N>
LOWRANK_INLINE Vec<double, N> softmax_exp(Vec<double, N> x) {
    return exp(x);
}
template <int N>
LOWRANK_INLINE Vec<double, N> log(Vec<double, N> x) {
    return detail::lane_by_lane<::log>(x);
}
template <int N>
LOWRANK_INLINE Vec<double, N> tanh(Vec<double, N> x) {
    return detail::lane_by_lane<::tanh>(x);
}
template <int N>
LOWRANK_INLINE Vec<double, N> erf(Vec<double, N> x) {
    return detail::lane_by_lane<::erf>(x);
}

} // namespace lowrank::simd
