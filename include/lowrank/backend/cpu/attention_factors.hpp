// The factors of attention's products on the host: as they were gathered, or as bf16 for processors with AMX.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "lowrank/backend/cpu/attention_tile.hpp"
#include "lowrank/backend/cpu/bf16_pairs.hpp"
#include "lowrank/backend/cpu/bf16x3.hpp"
#include "lowrank/backend/cpu/matmul_amx.hpp"
#include "lowrank/core/storage.hpp"
#include "lowrank/tensor/copy_block.hpp"

namespace lowrank::detail {

/// Memory of one task, cut into arrays of S, each of which begins with a cache line.
template <class S>
class AttentionScratch {
  public:
    explicit AttentionScratch(std::int64_t count)
        : storage_(Storage<Cpu>::allocate(static_cast<std::size_t>(count) * sizeof(S))),
          next_(static_cast<S*>(storage_.mutable_data())) {}
    S* take(std::int64_t count) { return std::exchange(next_, next_ + rounded(count)); }
    static constexpr std::int64_t rounded(std::int64_t count) { return (count + 15) / 16 * 16; }

  private:
    Storage<Cpu> storage_;
    S* next_;
};

/// A left factor: element (r, i) lies at r · row + i · step; of pairs, the i-th of row r.
template <class S>
struct AttentionLeft {
    const S* values;
    int row, step;
};

/// A right factor: rows of k, or of pairs of them.
template <class S>
struct AttentionRight {
    const S* values;
    int row;
};

/// How the products of an attention are formed: from numbers of S where they lie, without a copy.
template <class S>
struct AttentionValues {
    static constexpr bool reads_in_place = true; ///< packed factors are what was gathered

    /// Columns of a factor of so many, with what is read beyond them.
    static constexpr int padded(int columns) { return (columns + 15) / 16 * 16; }
    /// By what of the scale of the scores the queries are multiplied before they are packed.
    static S scale_of_queries(S scale) { return scale; }
    /// Numbers of S that the packed factors of a tile take.
    static constexpr std::int64_t left_room(int /*rows*/, int /*k*/) { return 0; }
    static constexpr std::int64_t right_room(int /*k*/, int /*columns*/) { return 0; }

    static AttentionLeft<S> rows(int /*rows*/, int /*k*/, const S* from, int from_row, S* /*memory*/) {
        return {from, from_row, 1};
    }
    /// The transpose of `from` [k, from_row].
    static AttentionLeft<S> columns(int /*rows*/, int /*k*/, const S* from, int from_row, S* /*memory*/) {
        return {from, 1, from_row};
    }
    static AttentionRight<S> right(int /*k*/, const S* from, int from_row, S* /*memory*/) { return {from, from_row}; }

    static void multiply(int m, int n, int k, const AttentionLeft<S>& a, const AttentionRight<S>& b, S* c, int c_row,
                         bool accumulate) {
        simd::run_for_isa<AttentionProduct>(m, n, k, a.values, a.row, a.step, b.values, b.row, c, c_row, accumulate);
    }
};

#if defined(__x86_64__)

/// to[i, c] = (from[2i, c], from[2i + 1, c]) rounded to bf16, for rows of `columns`, a multiple of the width; zeros
/// stand for the rows from `rows` on.
struct RoundToPairs {
    template <int Width>
    LOWRANK_INLINE static void run(int pairs, int rows, int columns, const float* from, int from_row, float* to) {
        using V = simd::Vec<float, Width>;
        for (int i = 0; i < pairs; ++i) {
            for (int c = 0; c < columns; c += Width) {
                const float* even = from + 2 * i * from_row + c;
                const V low = 2 * i < rows ? simd::detail::round_to_bf16(simd::load<V>(even)) : V(0.0f);
                const V high = 2 * i + 1 < rows ? simd::detail::round_to_bf16(simd::load<V>(even + from_row)) : V(0.0f);
                simd::store(pairs_of_upper_halves<Width>(low, high), to + i * columns + c);
            }
        }
    }
};

/// From pairs of bf16, by AMX: of the numbers rounded, or with three parts of all their bits (bf16x3.hpp). All sizes
/// are rounded up to those of its registers.
template <int Parts>
struct AttentionPairs {
    static constexpr bool reads_in_place = false;
    AmxRegisters registers; ///< while the products are formed

    /// Of rounded numbers a power of two, which they are multiplied by without rounding again.
    static float scale_of_queries(float scale) {
        return Parts == 3 ? scale : scale == 0.0f ? 1.0f : std::exp2(std::round(std::log2(std::abs(scale))));
    }
    static constexpr int padded(int columns) { return (columns + amx_tile - 1) / amx_tile * amx_tile; }
    static constexpr std::int64_t left_room(int rows, int k) { return padded(rows) * left_row(k); }
    static constexpr std::int64_t right_room(int k, int columns) { return left_row(k) * padded(columns); }

    static AttentionLeft<float> rows(int rows, int k, const float* from, int from_row, float* memory) {
        return left(rows, k, MatrixView<float>(from, from_row, 1), memory);
    }
    static AttentionLeft<float> columns(int rows, int k, const float* from, int from_row, float* memory) {
        return left(rows, k, MatrixView<float>(from, 1, from_row), memory);
    }
    /// All from_row columns, of which there are padded ones.
    static AttentionRight<float> right(int k, const float* from, int from_row, float* memory) {
        if constexpr (Parts == 3) {
            split_rows(k, from_row, from, from_row, 1.0f, memory, from_row, 0);
        } else {
            simd::run_with_avx512<RoundToPairs>(padded(k) / 2, k, from_row, from, from_row, memory);
        }
        return {memory, from_row};
    }

    static void multiply(int m, int n, int k, const AttentionLeft<float>& a, const AttentionRight<float>& b, float* c,
                         int c_row, bool accumulate) {
        for (int i = 0; i < m; i += amx_tile) {
            for (int j = 0; j < n; j += amx_tile) {
                multiply_amx_tile<Parts>(m - i, n - j, a.values + i * a.row, a.row, b.values + j, b.row,
                                         c + i * c_row + j, c_row, padded(k) / 2, accumulate);
            }
        }
    }

  private:
    /// Numbers of 32 bits in a packed row of a left factor.
    static constexpr int left_row(int k) { return padded(k) / 2 * Parts; }

    /// With zeros behind each row's k numbers, and in the rows that there are not: their sums may be somebody's.
    static AttentionLeft<float> left(int rows, int k, const MatrixView<float>& from, float* memory) {
        const int row = left_row(k);
        if constexpr (Parts == 3) {
            read_bf16x3_rows(from, 0, rows, 0, k, memory, row);
        } else {
            auto* to = reinterpret_cast<bf16*>(memory);
            read_block(from, 0, rows, 0, k, to, 2 * row);
            for (int r = 0; k < 2 * row && r < rows; ++r) {
                std::fill(to + r * 2 * row + k, to + (r + 1) * 2 * row, bf16());
            }
        }
        std::fill(memory + rows * row, memory + padded(rows) * row, 0.0f);
        return {memory, row, 1};
    }
};

#endif

/// Keys or values of a head in tiles of 64, packed once as left factors: by rows [key, head_dim] or by columns
/// [head_dim, key].
template <class S, class Factors>
class AttentionTiles {
  public:
    AttentionTiles(std::int64_t count, int dim, bool by_rows, bool by_columns)
        : count_(count),
          dim_(dim),
          room_{by_rows ? Factors::left_room(attention_tile, dim) : 0,
                by_columns ? Factors::left_room(dim, attention_tile) : 0},
          memory_(tiles() * (room_[0] + room_[1]) +
                  AttentionScratch<S>::rounded((Factors::reads_in_place ? count : attention_tile) * dim)),
          by_rows_(by_rows),
          by_columns_(by_columns) {
        gathered_ = memory_.take((Factors::reads_in_place ? count : attention_tile) * dim);
    }

    std::int64_t tiles() const { return (count_ + attention_tile - 1) / attention_tile; }

    /// Packs the vectors, where gather(first, count, to) copies some of them to rows of head_dim.
    template <class Gather>
    void pack(const Gather& gather) {
        for (std::int64_t first = 0; first < count_; first += attention_tile) {
            const auto count = static_cast<int>(std::min<std::int64_t>(attention_tile, count_ - first));
            S* from = gathered_ + (Factors::reads_in_place ? first * dim_ : 0);
            gather(first, count, from);
            if (by_rows_) {
                rows.push_back(Factors::rows(count, dim_, from, dim_, memory_.take(room_[0])));
            }
            if (by_columns_) {
                columns.push_back(Factors::columns(dim_, count, from, dim_, memory_.take(room_[1])));
            }
        }
    }

    std::vector<AttentionLeft<S>> rows, columns; // of each tile

  private:
    std::int64_t count_;
    int dim_;
    std::array<std::int64_t, 2> room_;
    AttentionScratch<S> memory_;
    bool by_rows_, by_columns_;
    S* gathered_;
};

} // namespace lowrank::detail
