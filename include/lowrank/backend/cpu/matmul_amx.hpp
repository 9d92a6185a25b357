// The tile of bf16 products on processors with AMX: 32 rows by 32 columns in four registers of 16 × 16 sums.
// Intel, "Architecture Instruction Set Extensions Programming Reference", chapter 3.
#pragma once

#include <cstdint>

#include "lowrank/simd/dispatch.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lowrank::detail {

/// Rows of the tile, and its columns.
inline constexpr int amx_tile = 32;

#if defined(__x86_64__)

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
        _tile_loadconfig(&shapes);
    }
    LOWRANK_TARGET_AMX_BF16 __attribute__((noinline)) ~AmxRegisters() { _tile_release(); }
    AmxRegisters(const AmxRegisters&) = delete;
    AmxRegisters& operator=(const AmxRegisters&) = delete;
};

/// c[32, 32] (+)= a·b for pairs of bf16: k steps, a multiple of 16. Rows of a, b and c are so many numbers of 32 bits
/// apart. The lower 16 rows, and so the right 16 columns, are left alone where there are no more than 16 `rows`, and
/// `columns`; the others are computed all. Subnormal numbers count as zero.
LOWRANK_TARGET_AMX_BF16 __attribute__((noinline)) inline void
multiply_amx_tile(std::int64_t rows, std::int64_t columns, const float* a, std::int64_t a_row, const float* b,
                  std::int64_t b_row, float* c, std::int64_t c_row, std::int64_t k, bool accumulate) {
    const bool two_rows = rows > 16, two_columns = columns > 16;
    const auto a_bytes = static_cast<std::size_t>(4 * a_row), b_bytes = static_cast<std::size_t>(4 * b_row),
               c_bytes = static_cast<std::size_t>(4 * c_row);
    float *right = c + 16, *lower = c + 16 * c_row, *lower_right = lower + 16;
    if (accumulate) {
        _tile_loadd(0, c, c_bytes);
        if (two_columns) {
            _tile_loadd(1, right, c_bytes);
        }
        if (two_rows) {
            _tile_loadd(2, lower, c_bytes);
            if (two_columns) {
                _tile_loadd(3, lower_right, c_bytes);
            }
        }
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (std::int64_t i = 0; i < k; i += 16) {
        _tile_loadd(4, a + i, a_bytes);
        _tile_loadd(6, b + i * b_row, b_bytes);
        _tile_dpbf16ps(0, 4, 6);
        if (two_columns) {
            _tile_loadd(7, b + i * b_row + 16, b_bytes);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (two_rows) {
            _tile_loadd(5, a + i + 16 * a_row, a_bytes);
            _tile_dpbf16ps(2, 5, 6);
            if (two_columns) {
                _tile_dpbf16ps(3, 5, 7);
            }
        }
    }
    _tile_stored(0, c, c_bytes);
    if (two_columns) {
        _tile_stored(1, right, c_bytes);
    }
    if (two_rows) {
        _tile_stored(2, lower, c_bytes);
        if (two_columns) {
            _tile_stored(3, lower_right, c_bytes);
        }
    }
}

#endif

} // namespace lowrank::detail
