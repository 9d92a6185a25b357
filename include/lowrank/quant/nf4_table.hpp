// The sixteen numbers of an NF4 block in registers, looked up by code.
#pragma once

#include <concepts>
#include <cstdint>

#include "lowrank/quant/nf4.hpp"
#include "lowrank/simd/memory.hpp"

namespace lowrank::detail {

/// Rounds the lanes to fp16's numbers: to nearest, ties to even, infinity from 65520 on; NaN stays NaN.
template <int N>
LOWRANK_INLINE simd::Vec<float, N> round_to_half(simd::Vec<float, N> x) {
    using V = simd::Vec<float, N>;
    using naturals = typename V::naturals;
    const V magnitude = abs(x);
    const naturals bits = (naturals)magnitude.v;
    const V normal = V::from_bits((bits + (0xfffu + (bits >> 13 & 1u))) & ~0x1fffu);
    // Below 2^-14 the last place is 2^-24, as it is from 0.5 to 1; read from the bits, which -ffast-math leaves alone.
    const V shifted = magnitude + V(0.5f);
    const V tiny = V(0x1p-24f) * typename V::Raw{__builtin_convertvector(
                                     (typename V::integers)((naturals)shifted.v - 0x3f000000u), typename V::type)};
    const V finite = select(magnitude < V(0x1p-14f), tiny, normal);
    const V rounded = select(magnitude >= V(65520.0f), V(__builtin_inff()), finite);
    return copysign(select(x == x, rounded, x), x);
}

/// Rounds the lanes to the numbers of S: float, which leaves them as they are, bf16 or fp16.
template <class S, int N>
LOWRANK_INLINE simd::Vec<float, N> round_to(simd::Vec<float, N> x) {
    using V = simd::Vec<float, N>;
    if constexpr (std::same_as<S, bf16>) {
        return V::from_bits((typename V::naturals)simd::detail::round_to_bf16(x).v & 0xffff0000u);
    } else if constexpr (std::same_as<S, fp16>) {
        return round_to_half(x);
    } else {
        return x;
    }
}

/// The same of numbers among which a NaN has no payload: faster.
template <class S, int N>
LOWRANK_INLINE simd::Vec<float, N> round_product_to(simd::Vec<float, N> x) {
    if constexpr (std::same_as<S, bf16>) {
        using V = simd::Vec<float, N>;
        return V::from_bits((typename V::naturals)simd::detail::round_plain_to_bf16(x).v & 0xffff0000u);
    } else {
        return round_to<S>(x);
    }
}

/// Sixteen floats in registers of Width lanes. On instruction sets with a permutation by a vector (AVX2 and above) a
/// lookup is a few instructions; on others the compilers read lane by lane.
template <int Width>
struct Nf4Table {
    using V = simd::Vec<float, Width>;
    static constexpr int parts = 16 / Width;
    V part[parts];

    /// What the codes stand for, unscaled.
    LOWRANK_INLINE static Nf4Table unscaled() {
        Nf4Table table;
        for (int i = 0; i < parts; ++i) {
            table.part[i] = simd::load<V>(nf4_values.data() + i * Width);
        }
        return table;
    }

    /// What the codes stand for in a block: scaled, and rounded to S. A scale that is NaN has no payload.
    template <class S>
    LOWRANK_INLINE Nf4Table scaled(float scale) const {
        Nf4Table table;
        for (int i = 0; i < parts; ++i) {
            table.part[i] = round_product_to<S>(part[i] * V(scale));
        }
        return table;
    }

    LOWRANK_INLINE void store(float* values) const {
        for (int i = 0; i < parts; ++i) {
            simd::store(part[i], values + i * Width);
        }
    }

    /// The numbers of the codes in the lowest four bits of each lane.
    LOWRANK_INLINE V operator[](V codes) const {
        using integers = typename V::integers;
        [[maybe_unused]] const integers index = (integers)codes.v;
        // Both builtins take as many low bits of an index as there are lanes to choose from.
        if constexpr (parts == 1) {
            return permuted(part[0], codes);
        } else if constexpr (parts == 2) {
            return select(typename V::mask{(index << 28) < 0}, permuted(part[1], codes), permuted(part[0], codes));
        } else {
            V result;
            for (int lane = 0; lane < Width; ++lane) {
                const auto code = static_cast<unsigned>(index[lane]) & 15u;
                result.v[lane] = part[code / Width].v[code % Width];
            }
            return result;
        }
    }

  private:
    LOWRANK_INLINE static V permuted(V values, V codes) {
        using integers = typename V::integers;
#if defined(__clang__)
        return typename V::Raw{__builtin_shufflevector(values.v, (integers)codes.v)};
#else
        return typename V::Raw{__builtin_shuffle(values.v, (integers)codes.v)};
#endif
    }
};

} // namespace lowrank::detail
