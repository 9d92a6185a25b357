// Decoding NF4: in the order of the codes, or a block of a matrix with outputs side by side.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "lowrank/core/parallel.hpp"
#include "lowrank/quant/double_quantization.hpp"
#include "lowrank/quant/nf4_table.hpp"
#include "lowrank/simd/dispatch.hpp"
#include "lowrank/simd/transpose.hpp"

namespace lowrank {

/// An NF4 tensor as it is stored. Borrowed memory.
struct Nf4View {
    const std::uint8_t* codes = nullptr;
    Nf4Scales scales;
    DType type = DType::f32; ///< what decoded numbers are rounded to: F32, BF16 or F16
};

namespace detail {

// Where the eight codes of four bytes, read as one number, have their lowest bit.
inline constexpr std::uint32_t nf4_shifts[16] = {4, 0, 12, 8, 20, 16, 28, 24, 4, 0, 12, 8, 20, 16, 28, 24};

/// The codes of Width numbers in the lowest bits of the lanes, whose upper bits hold others: those of part `part` of
/// numbers whose codes begin at `codes`. No other codes are read, or of less than eight numbers at most three bytes.
template <int Width>
LOWRANK_INLINE simd::Vec<float, Width> unpack_nf4(const std::uint8_t* codes, int part) {
    using V = simd::Vec<float, Width>;
    using naturals = typename V::naturals;
    static_assert(Width <= 16);
    naturals eight; // the eight codes of four bytes in eight lanes, the next eight in the others
    if constexpr (Width == 16) {
        using Words = typename simd::detail::InMemory<std::uint32_t, 2>::type;
        const auto words = *reinterpret_cast<const Words*>(codes + part * 8);
        eight = __builtin_shufflevector(words, words, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    } else {
        std::uint32_t word;
        std::memcpy(&word, codes + part * Width / 8 * 4, sizeof word);
        eight = LOWRANK_BROADCAST(word - naturals{});
    }
    const auto shifts = *reinterpret_cast<const typename simd::detail::InMemory<std::uint32_t, Width>::type*>(
        nf4_shifts + part * Width % 8);
    return V::from_bits(eight >> (naturals)shifts);
}

/// Stores numbers that are exact in T.
template <class T, int N>
LOWRANK_INLINE void store_exact(simd::Vec<float, N> x, T* to) {
    if constexpr (std::same_as<T, bf16>) {
        using Halves = typename simd::detail::InMemory<std::uint16_t, N>::type;
        using naturals = typename simd::Vec<float, N>::naturals;
        *reinterpret_cast<Halves*>(to) = __builtin_convertvector((naturals)x.v >> 16, Halves);
    } else {
        simd::store(x, to);
    }
}

/// Rows of a matrix [·, in] of codes: `rows` of them from row0, each `count` numbers from column, rounded to S, to
/// out[r · stride].
template <class S>
struct DecodeNf4Rows {
    template <int Width, class T>
    LOWRANK_INLINE static void run(const Nf4View& nf4, std::int64_t in, std::int64_t row0, std::int64_t rows,
                                   std::int64_t column, std::int64_t count, T* out, std::int64_t stride) {
        const Nf4Table<Width> unscaled = Nf4Table<Width>::unscaled();
        for (std::int64_t r = 0; r < rows; ++r) {
            const std::int64_t first = (row0 + r) * in + column;
            decode(nf4, unscaled, first, first + count, out + r * stride);
        }
    }

  private:
    template <int Width, class T>
    LOWRANK_INLINE static void decode(const Nf4View& nf4, const Nf4Table<Width>& unscaled, std::int64_t begin,
                                      std::int64_t end, T* out) {
        while (begin < end) {
            const std::int64_t rest = end - begin;
            constexpr std::int64_t most = 64; // scales that are read at a time
            float scales[most];
            if (begin % nf4_block == 0 && rest >= nf4_block) {
                const std::int64_t blocks = std::min(most, rest / nf4_block);
                nf4.scales.read<Width>(begin / nf4_block, blocks, scales);
                for (std::int64_t b = 0; b < blocks; ++b, begin += nf4_block, out += nf4_block) {
                    const Nf4Table<Width> table = table_for<S, T>(unscaled, scales[b]);
                    const std::uint8_t* codes = nf4.codes + static_cast<std::uint64_t>(begin) / 2;
#pragma GCC unroll 4
                    for (int part = 0; part < nf4_block / Width; ++part) {
                        store_exact(table[unpack_nf4<Width>(codes, part)], out + part * Width);
                    }
                }
            } else {
                const std::int64_t count = std::min(rest, nf4_block - begin % nf4_block);
                const Nf4Table<Width> table = table_for<S, T>(unscaled, nf4.scales[begin / nf4_block]);
                std::int64_t i = begin;
                for (; Width >= 8 && begin % Width == 0 && i + Width <= begin + count; i += Width, out += Width) {
                    store_exact(table[unpack_nf4<Width>(nf4.codes + i / 2, 0)], out);
                }
                begin += count;
                float values[16];
                if (i < begin) {
                    table.store(values);
                }
                for (; i < begin; ++i) {
                    *out++ = static_cast<T>(values[i % 2 == 0 ? nf4.codes[i / 2] >> 4 : nf4.codes[i / 2] & 15]);
                }
            }
        }
    }

    template <class Rounded, class T, int Width>
    LOWRANK_INLINE static Nf4Table<Width> table_for(const Nf4Table<Width>& unscaled, float scale) {
        Nf4Table<Width> table = unscaled.template scaled<Rounded>(scale);
        if constexpr (std::same_as<T, bf16> && !std::same_as<Rounded, bf16>) {
            for (auto& part : table.part) {
                part = round_to<bf16>(part);
            }
        }
        return table;
    }
};

/// A block of a matrix [out, in] of codes, transposed: `out_count` × `in_count` numbers from (out0, in0), rounded to S,
/// number (o, i) to to[o + i · stride]. in and in0 are multiples of 8.
template <class S>
struct DecodeNf4Columns {
    template <int Width, class T>
    LOWRANK_INLINE static void run(const Nf4View& nf4, std::int64_t in, std::int64_t out0, std::int64_t out_count,
                                   std::int64_t in0, std::int64_t in_count, T* to, std::int64_t stride) {
        for (std::int64_t o = 0; o < out_count; o += Width) {
            for (std::int64_t i = 0; i < in_count; i += 8 * Width) {
                decode<Width>(nf4, in, out0 + o, std::min<std::int64_t>(Width, out_count - o), in0 + i,
                              std::min<std::int64_t>(8 * Width, in_count - i), to + o + i * stride, stride);
            }
        }
    }

  private:
    // Up to Width outputs, one a lane, and 8 · Width inputs, eight of them in the 32 bits of a lane.
    template <int Width, class T>
    LOWRANK_INLINE static void decode(const Nf4View& nf4, std::int64_t in, std::int64_t out0, std::int64_t out_count,
                                      std::int64_t in0, std::int64_t in_count, T* to, std::int64_t stride) {
        using V = simd::Vec<float, Width>;
        const Nf4Table<Width> table = Nf4Table<Width>::unscaled();
        V codes[Width];
        load_codes(nf4.codes + (out0 * in + in0) / 2, in / 2, out_count, (in_count + 7) / 8, codes);
        simd::transpose(codes);
        V scales(0.0f);
        for (std::int64_t i = 0; i < in_count; i += 8, to += 8 * stride) {
            if (i == 0 || in % nf4_block != 0 || (in0 + i) % nf4_block == 0) { // other blocks begin
                scales = nf4.scales.across<Width>(out0 * in + in0 + i, in, out_count);
            }
            if (out_count == Width && i + 8 <= in_count) {
#pragma GCC unroll 8
                for (int t = 0; t < 8; ++t) {
                    simd::store(number(table, codes[i / 8], t, scales), to + t * stride);
                }
            } else {
                for (int t = 0; t < std::min<std::int64_t>(8, in_count - i); ++t) {
                    simd::store(number(table, codes[i / 8], t, scales), to + t * stride, out_count);
                }
            }
        }
    }

    template <int Width>
    LOWRANK_INLINE static simd::Vec<float, Width> number(const Nf4Table<Width>& table, simd::Vec<float, Width> codes,
                                                         int t, simd::Vec<float, Width> scales) {
        using V = simd::Vec<float, Width>;
        return round_product_to<S>(table[V::from_bits((typename V::naturals)codes.v >> nf4_shifts[t])] * scales);
    }

    // Row r of the codes, `words` times four bytes, as the lanes of codes[r]. What lies behind them is wanted next.
    template <int Width>
    LOWRANK_INLINE static void load_codes(const std::uint8_t* from, std::int64_t stride, std::int64_t rows,
                                          std::int64_t words, simd::Vec<float, Width> (&codes)[Width]) {
        using V = simd::Vec<float, Width>;
        using Words = typename simd::detail::InMemory<std::uint32_t, Width>::type;
        for (std::int64_t r = 0; r < Width; ++r, from += stride) {
            Words row = {};
            if (r < rows && words == Width) { // by a size that the compiler knows: one load
                std::memcpy(&row, from, sizeof row);
                __builtin_prefetch(from + sizeof row, 0, 2);
            } else if (r < rows) {
                std::memcpy(&row, from, static_cast<std::size_t>(words) * 4);
            }
            codes[r] = V::from_bits((typename V::naturals)row);
        }
    }
};

/// Calls `body(std::type_identity<S>)` for the type that decoded numbers are rounded to.
template <class Body>
void with_nf4_type(DType type, const Body& body) {
    switch (type) {
    case DType::bf16: return body(std::type_identity<bf16>());
    case DType::f16: return body(std::type_identity<fp16>());
    default: return body(std::type_identity<float>());
    }
}

} // namespace detail

/// Decodes a block of a matrix [·, in] whose numbers are rounded to S: `rows` from row0, each `count` numbers from
/// column, to out[r · stride + c].
template <class S, class T>
void decode_nf4_rows(const Nf4View& nf4, std::int64_t in, std::int64_t row0, std::int64_t rows, std::int64_t column,
                     std::int64_t count, T* out, std::int64_t stride) {
    simd::run_for_isa<detail::DecodeNf4Rows<S>>(nf4, in, row0, rows, column, count, out, stride);
}

/// The same block transposed: to out[r + c · stride]. in and column are multiples of 8.
template <class S, class T>
void decode_nf4_columns(const Nf4View& nf4, std::int64_t in, std::int64_t row0, std::int64_t rows, std::int64_t column,
                        std::int64_t count, T* out, std::int64_t stride) {
    simd::run_for_isa<detail::DecodeNf4Columns<S>>(nf4, in, row0, rows, column, count, out, stride);
}

/// Decodes `count` numbers, from the first on, into float or bf16.
template <class T>
void decode_nf4(const Nf4View& nf4, std::int64_t count, T* out) {
    detail::with_nf4_type(nf4.type, [&]<class S>(std::type_identity<S>) {
        parallel_chunks(count, 1024 * nf4_block, [&](std::int64_t begin, std::int64_t end) {
            decode_nf4_rows<S>(nf4, 0, 0, 1, begin, end - begin, out + begin, 0);
        });
    });
}

} // namespace lowrank
