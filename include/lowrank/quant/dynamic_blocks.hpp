// Numbers in an 8-bit dynamic type, block by block, each block with the scale of its largest magnitude.
#pragma once

#include <cstdint>

#include "lowrank/quant/dynamic_map.hpp"
#include "lowrank/simd/memory.hpp"

namespace lowrank {

/// Numbers that share a scale, as in bitsandbytes' 8-bit optimizers.
inline constexpr std::int64_t dynamic_block = 256;

/// Blocks, and so scales, of `count` numbers.
constexpr std::int64_t dynamic_blocks(std::int64_t count) {
    return (count + dynamic_block - 1) / dynamic_block;
}

namespace detail {

/// Lanes from 0 up, cut off to whole numbers.
template <int N>
LOWRANK_INLINE simd::Vec<float, N> whole(simd::Vec<float, N> x) {
    using V = simd::Vec<float, N>;
    return
        typename V::Raw{__builtin_convertvector(__builtin_convertvector(x.v, typename V::integers), typename V::type)};
}

/// The codes of lanes x, at most 1 in magnitude, as whole numbers: those of the nearest number of the map. Zero is no
/// choice: of a signed map for a negative x, so that no sign is lost, and of the unsigned one at all. Within rounding
/// of the middle between two numbers it is either. Source: quantize_2D and kOptimizerStatic8bit2StateBlockwise in
/// bitsandbytes' CUDA kernels, where a second moment can become zero; the next small gradient, divided by the root of
/// little more than itself, then moves a parameter by many times the learning rate.
template <bool IsSigned, int N>
LOWRANK_INLINE simd::Vec<float, N> dynamic_codes(simd::Vec<float, N> x) {
    using V = simd::Vec<float, N>;
    // Decade d of the map, 10^(d-7) … 10^(d-6), has n = lowest · 2^d numbers, the places n … 2n-1 when all are counted
    // from the lowest decade's. Place u stands for 10^(d-6) · (0.9 · (u + ½) / n - 0.8).
    constexpr int lowest = IsSigned ? 1 : 2;
    constexpr float above = IsSigned ? 0.996484375f : 0.9982421875f; // nearer to 1
    constexpr double units[] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0};
    const V magnitude = abs(x);
    V n(static_cast<float>(lowest)), slope(static_cast<float>(lowest / (0.9 * units[0])));
    for (int d = 1; d < 7; ++d) {
        const int numbers = lowest << d;
        const auto beyond = magnitude > V(static_cast<float>(units[d - 1] * (1 + 1.8 / numbers)));
        n = select(beyond, V(static_cast<float>(numbers)), n);
        slope = select(beyond, V(static_cast<float>(numbers / (0.9 * units[d]))), slope);
    }
    V place = fma(magnitude, slope, n * V(static_cast<float>(0.8 / 0.9)));
    place = max(n, min(n + n - V(0.5f), place)); // this way round a NaN is dropped
    place = select(magnitude > V(above), V(static_cast<float>(lowest << 7)), place);
    if constexpr (IsSigned) {
        const V kept = select(magnitude > V(2.75e-7f), whole(place), V(0.0f)); // below it is nearer to 0
        const V negative = max(V(1.0f), min(V(127.0f), kept));
        return V(127.0f) + select(typename V::mask{(typename V::integers)x.v < 0}, -negative, kept);
    } else {
        return whole(place) - V(1.0f);
    }
}

/// Writes the numbers of `count` codes, times a scale.
LOWRANK_INLINE void dynamic_values(const float* map, const std::uint8_t* codes, std::int64_t count, float scale,
                                   float* values) {
    for (std::int64_t i = 0; i < count; ++i) {
        values[i] = map[codes[i]] * scale;
    }
}

/// Writes the codes of `count` numbers, at most `scale` in magnitude; as if of zeros where the scale is zero.
template <bool IsSigned, int Width>
LOWRANK_INLINE void dynamic_encode(const float* values, std::int64_t count, float scale, std::uint8_t* codes) {
    using V = simd::Vec<float, Width>;
    using Bytes = typename simd::detail::InMemory<std::uint8_t, Width>::type;
    const V reciprocal(scale == 0 ? 0.0f : 1 / scale);
    std::int64_t i = 0;
    for (; i + Width <= count; i += Width) {
        const V x = simd::load<V>(values + i) * reciprocal;
        const V found = dynamic_codes<IsSigned>(x);
        *reinterpret_cast<Bytes*>(codes + i) =
            __builtin_convertvector(__builtin_convertvector(found.v, typename V::integers), Bytes);
    }
    if (i < count) {
        const V x = simd::load<V>(values + i, count - i) * reciprocal;
        const V rest = dynamic_codes<IsSigned>(x);
        for (int lane = 0; lane < Width && i < count; ++i, ++lane) {
            codes[i] = static_cast<std::uint8_t>(rest[lane]);
        }
    }
}

} // namespace detail

} // namespace lowrank
