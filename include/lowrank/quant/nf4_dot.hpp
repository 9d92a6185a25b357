// Products of a few rows with a matrix in NF4, whose codes are read once, in the order in which they lie.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "lowrank/quant/nf4_decode.hpp"

namespace lowrank {
namespace detail {

// Two bytes hold four codes. They are loaded as one number to a lane, which is shifted so that one code after the other
// is in its lowest bits.
inline constexpr int nf4_word = 4;
inline constexpr int nf4_word_shifts[nf4_word] = {4, 0, 12, 8};

/// Writes rows x [rows, in] block by block, the rows of a block side by side, and its numbers in the order of the
/// lanes.
struct ArrangeForNf4 {
    template <int Width>
    LOWRANK_INLINE static void run(std::int64_t rows, std::int64_t in, const float* x, float* to) {
        for (std::int64_t i = 0; i < in; i += nf4_block) {
            for (std::int64_t r = 0; r < rows; ++r, to += nf4_block) {
                for (int at = 0; at < nf4_block; ++at) {
                    const int group = at / (nf4_word * Width), part = at / Width % nf4_word, lane = at % Width;
                    to[at] = x[r * in + i + (group * Width + lane) * nf4_word + part];
                }
            }
        }
    }
};

/// multiply_nf4_rows.
template <class S>
struct MultiplyNf4Rows {
    template <int Width>
    LOWRANK_INLINE static void run(const Nf4View& nf4, std::int64_t in, std::int64_t row0, std::int64_t outs,
                                   const float* x, std::int64_t rows, float* y, std::int64_t y_stride) {
        std::int64_t r = 0; // whose loops are no lambda: that might be compiled without this instruction set
        for (; rows - r >= 4; r += 4) {
            multiply<Width, 4>(nf4, in, row0, outs, x + r * nf4_block, rows * nf4_block, y + r * y_stride, y_stride);
        }
        for (; rows - r >= 2; r += 2) {
            multiply<Width, 2>(nf4, in, row0, outs, x + r * nf4_block, rows * nf4_block, y + r * y_stride, y_stride);
        }
        for (; rows - r >= 1; r += 1) {
            multiply<Width, 1>(nf4, in, row0, outs, x + r * nf4_block, rows * nf4_block, y + r * y_stride, y_stride);
        }
    }

  private:
    template <int Width, int Rows>
    LOWRANK_INLINE static void multiply(const Nf4View& nf4, std::int64_t in, std::int64_t row0, std::int64_t outs,
                                        const float* x, std::int64_t x_block, float* y, std::int64_t y_stride) {
        using V = simd::Vec<float, Width>;
        constexpr int sums = Width == 16 ? 4 : 2; // of each row, so that multiplications do not wait for one another
        const Nf4Table<Width> unscaled = Nf4Table<Width>::unscaled();
        constexpr std::int64_t most = 256, ahead = 4096; // scales; bytes: further than the processor looks by itself
        float scales[most];
        std::int64_t block = row0 * in / nf4_block, left = outs * in / nf4_block, next = 0, read = 0;
        const std::uint8_t* codes = nf4.codes + static_cast<std::uint64_t>(row0 * in) / 2;
        for (std::int64_t o = 0; o < outs; ++o) {
            V sum[Rows][sums];
#pragma GCC unroll 16
            for (int i = 0; i < Rows * sums; ++i) {
                sum[i / sums][i % sums] = V(0.0f);
            }
            const float* values = x;
            for (std::int64_t rest = in / nf4_block; rest > 0;) {
                if (next == read) {
                    read = std::min(most, left);
                    nf4.scales.read<Width>(block, read, scales);
                    block += read;
                    left -= read;
                    next = 0;
                }
                const std::int64_t end = std::min(read, next + rest);
                rest -= end - next;
                for (; next < end; ++next, codes += nf4_block / 2, values += x_block) {
                    __builtin_prefetch(codes + ahead);
                    const Nf4Table<Width> table = unscaled.template scaled<S>(scales[next]);
#pragma GCC unroll 4
                    for (int group = 0; group < nf4_block / (nf4_word * Width); ++group) {
                        const V words = simd::detail::load_halves<Width>(codes + 2 * group * Width);
#pragma GCC unroll 4
                        for (int part = 0; part < nf4_word; ++part) {
                            const V w = table[V::from_bits((typename V::naturals)words.v >> nf4_word_shifts[part])];
#pragma GCC unroll 4
                            for (int r = 0; r < Rows; ++r) {
                                V& s = sum[r][part % sums];
                                const float* of_row = values + r * nf4_block + (group * nf4_word + part) * Width;
                                s = fma(simd::load<V>(of_row), w, s);
                            }
                        }
                    }
                }
            }
#pragma GCC unroll 4
            for (int r = 0; r < Rows; ++r) { // unrolled, or the sums would be kept in memory
                V all = sum[r][0] + sum[r][1];
#pragma GCC unroll 4
                for (int i = 2; i < sums; ++i) {
                    all = all + sum[r][i];
                }
                y[r * y_stride + o] = reduce_add(all);
            }
        }
    }
};

} // namespace detail

/// x [rows, in] as multiply_nf4_rows reads it. `in` is a number of whole blocks.
inline std::vector<float> arranged_for_nf4(const float* x, std::int64_t rows, std::int64_t in) {
    std::vector<float> arranged(static_cast<std::size_t>(rows * in));
    simd::run_for_isa<detail::ArrangeForNf4>(rows, in, x, arranged.data());
    return arranged;
}

/// y[r · y_stride + o] = x[r, :] · W[row0 + o, :] for `outs` rows of a matrix W [·, in] of codes whose numbers are
/// rounded to S, and all `rows` of x, arranged for it. `in` is a number of whole blocks. A sum's order depends on `in`
/// and the instruction set.
template <class S>
void multiply_nf4_rows(const Nf4View& nf4, std::int64_t in, std::int64_t row0, std::int64_t outs, const float* x,
                       std::int64_t rows, float* y, std::int64_t y_stride) {
    simd::run_for_isa<detail::MultiplyNf4Rows<S>>(nf4, in, row0, outs, x, rows, y, y_stride);
}

} // namespace lowrank
