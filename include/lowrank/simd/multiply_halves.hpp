// Whole products of 32-bit numbers, which lie in the lower halves of 64-bit lanes.
#pragma once

#include <cstdint>

#include "lowrank/simd/vec.hpp"

namespace lowrank::simd {

/// The products of the lower halves of x's lanes and of y's; what the upper halves hold does not count. Words are a
/// Vec<double, N>::naturals. This is one instruction, which clang finds by itself. g++ 12 does not see that the upper
/// halves of its factors are zero, and would multiply three times.
template <class Words>
LOWRANK_INLINE void multiply_halves(const Words& x, const Words& y, Words& product) {
#if defined(__x86_64__) && !defined(__clang__)
    if constexpr (sizeof(Words) >= 32) { // AVX2's and AVX-512's vectors, used by functions for them alone
        asm("vpmuludq {%2, %1, %0|%0, %1, %2}" : "=v"(product) : "v"(x), "v"(y));
        return;
    }
#endif
    product = (x & std::uint64_t(0xffffffffu)) * (y & std::uint64_t(0xffffffffu));
}

} // namespace lowrank::simd
