// The tile of bf16 products on processors with AMX: 32 rows by 32 columns in four registers of 16 × 16 sums.
// Intel, "Architecture Instruction Set Extensions Programming Reference", chapter 3.
#pragma once

#include <cstdint>

#include "lowrank/simd/dispatch.hpp"
#include "lowrank/simd/vec.hpp"

namespace lowrank::detail {

/// Rows of the tile, and its columns.
inline constexpr int amx_tile = 32;

#if defined(__x86_64__)

// AMX's instructions by the number of a tile register, spelled out: the compilers' header for them, <immintrin.h>,
// takes about as long to read as all of this library's. Distances of rows are in bytes.

template <int Register>
LOWRANK_TARGET_AMX_BF16 LOWRANK_INLINE void load_tile(const float* from, std::size_t row) {
    asm volatile("{tileloadd (%0,%1,1), %%tmm%c2|tileloadd %%tmm%c2, [%0+%1*1]}"
                 :
                 : "r"(from), "r"(row), "n"(Register)
                 : "memory");
}
template <int Register>
LOWRANK_TARGET_AMX_BF16 LOWRANK_INLINE void store_tile(float* to, std::size_t row) {
    asm volatile("{tilestored %%tmm%c2, (%0,%1,1)|tilestored [%0+%1*1], %%tmm%c2}"
                 :
                 : "r"(to), "r"(row), "n"(Register)
                 : "memory");
}
template <int Register>
LOWRANK_TARGET_AMX_BF16 LOWRANK_INLINE void zero_tile() {
    asm volatile("tilezero %%tmm%c0" : : "n"(Register));
}
/// Sums += Left · Right, of pairs of bf16.
template <int Sums, int Left, int Right>
LOWRANK_TARGET_AMX_BF16 LOWRANK_INLINE void multiply_tiles() {
    asm volatile("{tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0|tdpbf16ps %%tmm%c0, %%tmm%c1, %%tmm%c2}"
                 :
                 : "n"(Sums), "n"(Left), "n"(Right));
}

/// The shapes of this thread's tile registers while it lives: 16 rows of 64 bytes in each.
class AmxRegisters {
  public:
    LOWRANK_TARGET_AMX_BF16 __attribute__((noinline)) AmxRegisters() {
        struct Shapes {
            std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
            std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        };
        static constexpr Shapes shapes; // g++ 12 would not store what of a variable lies behind the first 8 bytes
        asm volatile("ldtilecfg %0" : : "m"(shapes));
    }
    LOWRANK_TARGET_AMX_BF16 __attribute__((noinline)) ~AmxRegisters() { asm volatile("tilerelease"); }
    AmxRegisters(const AmxRegisters&) = delete;
    AmxRegisters& operator=(const AmxRegisters&) = delete;
};

/// Memory that will be read soon: while a tile is multiplied, the caches are asked for so many lines of it for each 16
/// steps of k.
struct AmxAhead {
    const float* next = nullptr;
    std::int64_t lines = 0;

    LOWRANK_INLINE void fetch(std::int64_t count) {
        for (const float* end = next + 16 * count; next != end; next += 16) {
            __builtin_prefetch(next);
        }
    }
};

/// One or two registers of rows by one or two of columns. Registers 0 to 3 are the sums, 4 and 5 rows of the left
/// factor, 6 and 7 columns of the right one. Distances of rows are in bytes.
template <bool TwoRows, bool TwoColumns>
struct AmxTile {
    std::size_t a_row, b_row, c_row;

    LOWRANK_TARGET_AMX_BF16 LOWRANK_INLINE void load_sums(const float* c, const float* lower) const {
        load_tile<0>(c, c_row);
        if constexpr (TwoColumns) {
            load_tile<1>(c + 16, c_row);
        }
        if constexpr (TwoRows) {
            load_tile<2>(lower, c_row);
        }
        if constexpr (TwoRows && TwoColumns) {
            load_tile<3>(lower + 16, c_row);
        }
    }
    LOWRANK_TARGET_AMX_BF16 LOWRANK_INLINE void store_sums(float* c, float* lower) const {
        store_tile<0>(c, c_row);
        if constexpr (TwoColumns) {
            store_tile<1>(c + 16, c_row);
        }
        if constexpr (TwoRows) {
            store_tile<2>(lower, c_row);
        }
        if constexpr (TwoRows && TwoColumns) {
            store_tile<3>(lower + 16, c_row);
        }
    }
    LOWRANK_TARGET_AMX_BF16 LOWRANK_INLINE void load_left(const float* a) const {
        load_tile<4>(a, a_row);
        if constexpr (TwoRows) {
            load_tile<5>(a + 4 * a_row, a_row); // 16 rows of numbers of 4 bytes
        }
    }
    LOWRANK_TARGET_AMX_BF16 LOWRANK_INLINE void load_right(const float* b) const {
        load_tile<6>(b, b_row);
        if constexpr (TwoColumns) {
            load_tile<7>(b + 16, b_row);
        }
    }
    LOWRANK_TARGET_AMX_BF16 LOWRANK_INLINE void multiply() const {
        multiply_tiles<0, 4, 6>();
        if constexpr (TwoColumns) {
            multiply_tiles<1, 4, 7>();
        }
        if constexpr (TwoRows) {
            multiply_tiles<2, 5, 6>();
        }
        if constexpr (TwoRows && TwoColumns) {
            multiply_tiles<3, 5, 7>();
        }
    }
    /// 16 steps of k of fp32 numbers in three parts of a register each (bf16x3.hpp). Of the nine products, three are
    /// below fp32's precision; the small ones come first, and each factor that is loaded serves two.
    LOWRANK_TARGET_AMX_BF16 LOWRANK_INLINE void multiply_parts(const float* a, const float* b, AmxAhead& ahead) const {
        const std::int64_t lines = ahead.lines / 3, b_part = static_cast<std::int64_t>(4 * b_row);
        load_left(a);
        load_right(b + 2 * b_part);
        multiply();
        load_right(b + b_part);
        multiply();
        ahead.fetch(lines);
        load_left(a + 16);
        multiply();
        load_right(b);
        multiply();
        ahead.fetch(lines);
        load_left(a + 2 * 16);
        multiply();
        ahead.fetch(ahead.lines - 2 * lines);
        load_left(a);
        multiply();
    }
    template <int Parts>
    LOWRANK_TARGET_AMX_BF16 LOWRANK_INLINE void run(const float* a, const float* b, float* c, std::int64_t k,
                                                    bool accumulate, AmxAhead ahead) const {
        float* lower = c + 4 * c_row;
        if (accumulate) {
            load_sums(c, lower);
        } else {
            zero_tile<0>();
            zero_tile<1>();
            zero_tile<2>();
            zero_tile<3>();
        }
        for (std::int64_t i = 0; i < k; i += 16, a += 16 * Parts, b += 4 * b_row * Parts) {
            if constexpr (Parts == 3) {
                multiply_parts(a, b, ahead);
            } else {
                load_left(a);
                load_right(b);
                multiply();
            }
        }
        store_sums(c, lower);
    }
};

/// c[32, 32] (+)= a·b for pairs of bf16, or with three parts for fp32 numbers split into them: k steps, a multiple of
/// 16. Rows of a, b and c are so many numbers of 32 bits apart. The lower 16 rows, and so the right 16 columns, are
/// left alone where there are no more than 16 `rows`, and `columns`; the others are computed all. Subnormal numbers
/// count as zero.
template <int Parts>
LOWRANK_TARGET_AMX_BF16 __attribute__((noinline)) void
multiply_amx_tile(std::int64_t rows, std::int64_t columns, const float* a, std::int64_t a_row, const float* b,
                  std::int64_t b_row, float* c, std::int64_t c_row, std::int64_t k, bool accumulate,
                  const AmxAhead& ahead = {}) {
    static_assert(Parts == 1 || Parts == 3);
    const auto bytes = [](std::int64_t numbers) { return static_cast<std::size_t>(4 * numbers); };
    const std::size_t a_bytes = bytes(a_row), b_bytes = bytes(b_row), c_bytes = bytes(c_row);
    if (rows > 16 && columns > 16) {
        AmxTile<true, true>{a_bytes, b_bytes, c_bytes}.run<Parts>(a, b, c, k, accumulate, ahead);
    } else if (rows > 16) {
        AmxTile<true, false>{a_bytes, b_bytes, c_bytes}.run<Parts>(a, b, c, k, accumulate, ahead);
    } else if (columns > 16) {
        AmxTile<false, true>{a_bytes, b_bytes, c_bytes}.run<Parts>(a, b, c, k, accumulate, ahead);
    } else {
        AmxTile<false, false>{a_bytes, b_bytes, c_bytes}.run<Parts>(a, b, c, k, accumulate, ahead);
    }
}

#endif

} // namespace lowrank::detail
