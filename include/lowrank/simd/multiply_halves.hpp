// Whole products of 32-bit numbers, which lie in the lower halves of 64-bit lanes.
#pragma once

#include <cstdint>

#include "lowrank/simd/vec.hpp"

namespace lowrank::simd {

/// The products of the lower halves of x's and y's lanes, all of them as bits; the upper halves do not count. This is
/// one instruction, which clang finds by itself. g++ 12 does not see that the upper halves of its factors are zero, and
/// would multiply three times.
template <int N>
LOWRANK_INLINE Vec<double, N> multiply_halves(Vec<double, N> x, Vec<double, N> y) {
#if defined(__x86_64__) && !defined(__clang__)
    if constexpr (Vec<double, N>::bytes >= 32) { // only functions for AVX2 or AVX-512 have such vectors
        Vec<double, N> product;
        asm("vpmuludq {%2, %1, %0|%0, %1, %2}" : "=v"(product.v) : "v"(x.v), "v"(y.v));
        return product;
    }
#endif
    using Words = typename Vec<double, N>::naturals;
    constexpr std::uint64_t low = 0xffffffffu;
    return Vec<double, N>::from_bits(((Words)x.v & low) * ((Words)y.v & low));
}

} // namespace lowrank::simd
