// Double quantization: the scales of a quantized tensor, themselves quantized to 8 bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "lowrank/core/parallel.hpp"
#include "lowrank/quant/dynamic_map.hpp"
#include "lowrank/quant/nf4.hpp"
#include "lowrank/simd/memory.hpp"

namespace lowrank {

/// Scales that share one of the second kind.
inline constexpr std::int64_t nested_block = 256;

/// Scales of the second kind for `count` of the first.
constexpr std::int64_t nested_blocks(std::int64_t count) {
    return (count + nested_block - 1) / nested_block;
}

/// The scales of an NF4 tensor as they are stored: plain, or quantized a second time. Borrowed memory.
struct Nf4Scales {
    const float* absmax = nullptr;        ///< plain scales; null where they are quantized
    const std::uint8_t* codes = nullptr;  ///< one a block of the tensor
    const float* nested_absmax = nullptr; ///< one for every nested_block codes
    const float* nested_map = nullptr;    ///< what the 256 codes stand for: dynamic_map, or what a file says
    float offset = 0;

    /// The scale of a block.
    LOWRANK_INLINE float operator[](std::int64_t block) const { return across<4>(block * nf4_block, 0, 1)[0]; }

    /// The scales of the blocks that hold the numbers first, first + stride, …, in N lanes of which `count` count. A
    /// NaN among them has no payload.
    template <int N>
    LOWRANK_INLINE simd::Vec<float, N> across(std::int64_t first, std::int64_t stride, std::int64_t count) const {
        using V = simd::Vec<float, N>;
        const Nf4Scales stored = *this; // what is written below cannot change a copy
        float a[N] = {}, b[N] = {};
        auto number = static_cast<std::uint64_t>(first);
        const auto step = static_cast<std::uint64_t>(stride);
        V scales;
        if (stored.absmax != nullptr) {
            for (std::int64_t i = 0; i < count; ++i, number += step) {
                a[i] = stored.absmax[number / nf4_block];
            }
            scales = simd::load<V>(a);
        } else {
            for (std::int64_t i = 0; i < count; ++i, number += step) {
                a[i] = stored.nested_map[stored.codes[number / nf4_block]];
                b[i] = stored.nested_absmax[number / (nf4_block * nested_block)];
            }
            scales = plus_product(V(stored.offset), simd::load<V>(a), simd::load<V>(b));
        }
        return counted(scales);
    }

    /// Writes the scales of `count` blocks in a row, from `block` on, with vectors of N lanes. A NaN among them has no
    /// payload.
    template <int N>
    LOWRANK_INLINE void read(std::int64_t block, std::int64_t count, float* scales) const {
        const Nf4Scales stored = *this; // what is written below cannot change a copy
        while (count > 0) {
            const auto first = static_cast<std::uint64_t>(block);
            const bool is_nested = stored.absmax == nullptr;
            const std::int64_t rest = nested_block - block % nested_block,
                               some = std::min(count, is_nested ? rest : count);
            for (std::int64_t i = 0; is_nested && i < some; ++i) { // all before the first vector, which would wait
                scales[i] = stored.nested_map[stored.codes[first + static_cast<std::uint64_t>(i)]];
            }
            const float* from = is_nested ? scales : stored.absmax + first;
            const float factor = is_nested ? stored.nested_absmax[first / nested_block] : 0.0f;
            for (std::int64_t i = 0; i < some; i += N) {
                using V = simd::Vec<float, N>;
                const std::int64_t here = std::min<std::int64_t>(N, some - i);
                const V values = simd::load<V>(from + i, here);
                simd::store(counted(is_nested ? plus_product(V(stored.offset), values, V(factor)) : values), scales + i,
                            here);
            }
            block += some;
            scales += some;
            count -= some;
        }
    }

  private:
    template <int N>
    LOWRANK_INLINE static simd::Vec<float, N> counted(simd::Vec<float, N> scales) {
        using V = simd::Vec<float, N>;
        scales = select(abs(scales) < V(std::numeric_limits<float>::min()), V(0.0f), scales);
        return select(scales == scales, scales, V(std::numeric_limits<float>::quiet_NaN()));
    }

    // offset + a·b, rounded twice: a compiler must not make one operation of it.
    template <int N>
    LOWRANK_INLINE static simd::Vec<float, N> plus_product(simd::Vec<float, N> offset, simd::Vec<float, N> a,
                                                           simd::Vec<float, N> b) {
#if defined(__clang__)
#pragma clang fp contract(off)
        return typename simd::Vec<float, N>::Raw{a.v * b.v + offset.v};
#else
        typename simd::Vec<float, N>::type product = a.v * b.v;
        asm("" : "+m"(product)); // __builtin_assoc_barrier would take the vector apart
        return typename simd::Vec<float, N>::Raw{product + offset.v};
#endif
    }
};

/// Quantizes `count` scales: their mean is the offset, which is returned, and what they differ from it gets a code each
/// and nested_absmax[⌈count / nested_block⌉]. Codes are those of bitsandbytes' CUDA kernels (those of its CPU path
/// differ by one now and then). Of an empty tensor the offset is zero.
inline float quantize_scales(const float* absmax, std::int64_t count, std::uint8_t* codes, float* nested_absmax) {
    double sum = 0;
    for (std::int64_t i = 0; i < count; ++i) {
        sum += static_cast<double>(absmax[i]);
    }
    const float offset = count == 0 ? 0.0f : static_cast<float>(sum / static_cast<double>(count));
    parallel_chunks(count, nested_block, [&](std::int64_t begin, std::int64_t end) {
        float largest = 0;
        for (std::int64_t i = begin; i < end; ++i) {
            const float difference = std::abs(absmax[i] - offset);
            largest = difference > largest || std::isnan(difference) ? difference : largest;
        }
        nested_absmax[begin / nested_block] = nf4_scale(largest);
        const float reciprocal = nf4_scale(largest) == 0 ? 0 : 1 / largest;
        for (std::int64_t i = begin; i < end; ++i) {
            codes[i] = dynamic_code((absmax[i] - offset) * reciprocal);
        }
    });
    return offset;
}

} // namespace lowrank
