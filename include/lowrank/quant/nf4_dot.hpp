// Products of a few rows with a matrix in NF4, whose codes are read once, in the order in which they lie.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "lowrank/quant/nf4_decode.hpp"

namespace lowrank {
namespace detail {

/// y[r · y_stride + o] = x[r, :] · W[row0 + o, :] for `outs` rows of a matrix W [·, in] of codes whose numbers are
/// rounded to S, and all `rows` of x [rows, in]. `in` is a number of whole blocks. A sum's order depends on `in` alone.
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
        constexpr int sums = 2; // of each row, so that few multiplications wait for one another
        const Nf4Table<Width> unscaled = Nf4Table<Width>::unscaled();
        for (std::int64_t o = 0; o < outs; ++o) {
            V sum[Rows][sums];
            for (auto& row : sum) {
                row[0] = row[1] = V(0.0f);
            }
            const std::int64_t first = (row0 + o) * in;
            const std::uint8_t* codes = nf4.codes + static_cast<std::uint64_t>(first) / 2;
            const float* values = x;
            for (std::int64_t i = 0; i < in;) {
                constexpr std::int64_t ahead = 4096; // bytes: further than the processor looks by itself
                float scales[Width];
                const std::int64_t blocks = std::min<std::int64_t>(Width, (in - i) / nf4_block);
                simd::store(nf4.scales.of_blocks<Width>((first + i) / nf4_block, blocks), scales);
                for (std::int64_t b = 0; b < blocks; ++b, i += nf4_block, codes += nf4_block / 2, values += x_block) {
                    if (b % 2 == 0) {
                        __builtin_prefetch(codes + ahead);
                    }
                    const Nf4Table<Width> table = unscaled.template scaled<S>(scales[b]);
#pragma GCC unroll 4
                    for (int part = 0; part < nf4_block / Width; ++part) {
                        const V w = table[unpack_nf4<Width>(codes, part)];
#pragma GCC unroll 4
                        for (int r = 0; r < Rows; ++r) {
                            V& s = sum[r][part % sums];
                            s = fma(simd::load<V>(values + r * nf4_block + part * Width), w, s);
                        }
                    }
                }
            }
            for (int r = 0; r < Rows; ++r) {
                y[r * y_stride + o] = reduce_add(sum[r][0] + sum[r][1]);
            }
        }
    }
};

} // namespace detail

/// y[r · y_stride + o] = x[r, :] · W[row0 + o, :] for `outs` rows of a matrix W [·, in] of codes whose numbers are
/// rounded to S, and all `rows` of x [rows, in]. `in` is a number of whole blocks. A sum's order depends on `in` alone.
template <class S>
void multiply_nf4_rows(const Nf4View& nf4, std::int64_t in, std::int64_t row0, std::int64_t outs, const float* x,
                       std::int64_t rows, float* y, std::int64_t y_stride) {
    simd::run_for_isa<detail::MultiplyNf4Rows<S>>(nf4, in, row0, outs, x, rows, y, y_stride);
}

} // namespace lowrank
