// Quantizing numbers to NF4.
#pragma once

#include <algorithm>
#include <cstdint>

#include "lowrank/core/parallel.hpp"
#include "lowrank/quant/nf4.hpp"
#include "lowrank/simd/dispatch.hpp"
#include "lowrank/simd/memory.hpp"

namespace lowrank {
namespace detail {

struct QuantizeNf4 {
    /// Whole blocks and, at the end, perhaps a part of one.
    template <int Width, class T>
    LOWRANK_INLINE static void run(const T* values, std::int64_t count, std::uint8_t* codes, float* scales) {
        for (; count >= nf4_block; count -= nf4_block) {
            *scales++ = quantize_block<Width>(values, codes);
            values += nf4_block;
            codes += nf4_bytes(nf4_block);
        }
        if (count > 0) {
            T block[nf4_block] = {};
            std::copy_n(values, count, block);
            std::uint8_t block_codes[nf4_bytes(nf4_block)];
            *scales = quantize_block<Width>(block, block_codes);
            std::copy_n(block_codes, nf4_bytes(count), codes);
        }
    }

  private:
    template <int Width, class T>
    LOWRANK_INLINE static float quantize_block(const T* values, std::uint8_t* codes) {
        using V = simd::Vec<float, Width>;
        constexpr int vectors = static_cast<int>(nf4_block) / Width;
        V x[vectors];
        for (int i = 0; i < vectors; ++i) {
            x[i] = simd::load<V>(values + i * Width);
        }
        const float absmax = nf4_scale(largest_magnitude(x));
        // As in bitsandbytes the numbers are multiplied by the reciprocal, which rounds differently from a division.
        const V reciprocal(absmax == 0 ? 0 : 1 / absmax);
        for (int i = 0; i < vectors; i += 2) {
            store_codes(code_of(x[i] * reciprocal), code_of(x[i + 1] * reciprocal), codes + i * Width / 2);
        }
        return absmax;
    }

    // Of the bits, whose order is that of the magnitudes, with NaN above all.
    template <int Width, int Count>
    LOWRANK_INLINE static float largest_magnitude(const simd::Vec<float, Width> (&x)[Count]) {
        simd::Vec<float, Width> largest = abs(x[0]);
        for (int i = 1; i < Count; ++i) {
            largest = larger(largest, abs(x[i]));
        }
        return largest_lane(largest);
    }
    template <int N>
    LOWRANK_INLINE static float largest_lane(simd::Vec<float, N> x) {
        if constexpr (N == 2) {
            return std::bit_cast<float>(std::max(std::bit_cast<std::int32_t>(x[0]), std::bit_cast<std::int32_t>(x[1])));
        } else {
            return largest_lane(larger(lower_half(x), upper_half(x)));
        }
    }
    template <int N>
    LOWRANK_INLINE static simd::Vec<float, N> larger(simd::Vec<float, N> a, simd::Vec<float, N> b) {
        using V = simd::Vec<float, N>;
        using integers = typename V::integers;
        return select(typename V::mask{(integers)a.v > (integers)b.v}, a, b);
    }

    // The codes of numbers in units of their scale, as the bits of the lanes; NaN has the highest.
    template <int Width>
    LOWRANK_INLINE static simd::Vec<float, Width> code_of(simd::Vec<float, Width> x) {
        using V = simd::Vec<float, Width>;
        typename V::integers code = typename V::integers{} + 15;
#pragma GCC unroll 15
        for (std::size_t i = 0; i < nf4_thresholds.size(); ++i) {
            code += (x <= V(nf4_thresholds[i])).v; // a true lane is -1
        }
        return V::from_bits((typename V::naturals)code);
    }

    template <int Width>
    LOWRANK_INLINE static void store_codes(simd::Vec<float, Width> low, simd::Vec<float, Width> high,
                                           std::uint8_t* codes) {
        using V = simd::Vec<float, Width>;
        using naturals = typename V::naturals;
        const V first = every_other<0>(low, high, std::make_integer_sequence<int, Width>());
        const V second = every_other<1>(low, high, std::make_integer_sequence<int, Width>());
        const naturals bytes = (naturals)first.v << 4 | (naturals)second.v;
        if constexpr (Width == 16) {
            using Bytes = typename simd::detail::InMemory<std::uint8_t, Width>::type;
            *reinterpret_cast<Bytes*>(codes) = __builtin_convertvector(bytes, Bytes);
        } else {
            for (int i = 0; i < Width; ++i) {
                codes[i] = static_cast<std::uint8_t>(bytes[i]);
            }
        }
    }

    template <int First, int Width, int... Lanes>
    LOWRANK_INLINE static simd::Vec<float, Width> every_other(simd::Vec<float, Width> a, simd::Vec<float, Width> b,
                                                              std::integer_sequence<int, Lanes...>) {
        return typename simd::Vec<float, Width>::Raw{__builtin_shufflevector(a.v, b.v, (First + 2 * Lanes)...)};
    }
};

} // namespace detail

/// Quantizes `count` numbers (float, bf16 or fp16): nf4_bytes(count) bytes of codes and nf4_blocks(count) scales, the
/// same for any number of threads and instruction set. Where a half byte is left over it has the code of zero.
template <class T>
void quantize_nf4(const T* values, std::int64_t count, std::uint8_t* codes, float* scales) {
    parallel_chunks(count, 1024 * nf4_block, [&](std::int64_t begin, std::int64_t end) {
        simd::run_for_isa<detail::QuantizeNf4>(values + begin, end - begin, codes + begin / 2,
                                               scales + begin / nf4_block);
    });
}

} // namespace lowrank
