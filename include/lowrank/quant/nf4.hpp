// NF4: sixteen numbers that a 4-bit code stands for, times the largest magnitude of its block of 64 numbers.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <limits>
#include <optional>

#include "lowrank/core/error.hpp"
#include "lowrank/core/scalar.hpp"

namespace lowrank {

// Dettmers et al., "QLoRA", 2023, and bitsandbytes, whose bits these are. A tensor is seen as one row of numbers, cut
// into blocks of 64 (the last may be shorter). Two codes are a byte, the first in its upper half.

/// Numbers that share a scale.
inline constexpr std::int64_t nf4_block = 64;

/// What the codes 0 … 15 stand for, before the scale.
inline constexpr std::array<float, 16> nf4_values = [] {
    constexpr std::uint32_t bits[16] = {0xbf800000, 0xbf3239b1, 0xbf066b30, 0xbeca32a0, 0xbe91a24d, 0xbe3d353f,
                                        0xbdba7871, 0x00000000, 0x3da2faff, 0x3e24cae3, 0x3e7c04dd, 0x3ead033a,
                                        0x3ee1a4b8, 0x3f1007ab, 0x3f3913b3, 0x3f800000};
    std::array<float, 16> values{};
    for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = std::bit_cast<float>(bits[i]);
    }
    return values;
}();

/// A number gets code c when it is above the first c of these (in units of its block's scale).
inline constexpr std::array<float, 15> nf4_thresholds = [] {
    constexpr std::uint32_t bits[15] = {0xbf591cd8, 0xbf1c5270, 0xbeeb8480, 0xbeadea76, 0xbe703cec,
                                        0xbe0d38bc, 0xbd3a7871, 0x3d22faff, 0x3df64862, 0x3e5067e0,
                                        0x3e9582d4, 0x3ec753f9, 0x3f006d04, 0x3f248daf, 0x3f5c89da};
    std::array<float, 15> thresholds{};
    for (std::size_t i = 0; i < thresholds.size(); ++i) {
        thresholds[i] = std::bit_cast<float>(bits[i]);
    }
    return thresholds;
}();

/// Blocks, and so scales, of `count` numbers.
constexpr std::int64_t nf4_blocks(std::int64_t count) {
    return (count + nf4_block - 1) / nf4_block;
}
/// Bytes of their codes.
constexpr std::int64_t nf4_bytes(std::int64_t count) {
    return (count + 1) / 2;
}

/// A scale as it counts: one below the normal numbers is zero.
constexpr float nf4_scale(float absmax) {
    const float magnitude = absmax < 0 ? -absmax : absmax;
    return magnitude < std::numeric_limits<float>::min() ? 0.0f : absmax;
}

/// How a matrix is quantized to NF4.
struct Nf4Options {
    /// Scales are quantized, too: 4.13 bits a number instead of 4.5.
    bool double_quantization = false;
    /// The type that numbers are rounded to, before they are quantized and when they are decoded: F32, BF16 or F16; or
    /// nothing, for the matrix's own type (F32 where that is another).
    std::optional<DType> type = {};
};

/// Throws OptionError unless numbers are rounded to this type where they are decoded: F32, BF16 or F16.
inline void require_nf4_type(DType type) {
    if (type != DType::f32 && type != DType::bf16 && type != DType::f16) {
        throw OptionError(concat("NF4: found ", name_of(type),
                                 " as the type of decoded numbers, expected F32, BF16 or "
                                 "F16"));
    }
}

} // namespace lowrank
