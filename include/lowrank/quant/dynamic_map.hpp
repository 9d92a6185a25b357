// The 256 numbers of the 8-bit dynamic types: signed, for the scales of scales and a first moment, and unsigned.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace lowrank {

namespace detail {

constexpr std::array<float, 256> make_dynamic_map(bool is_signed) {
    std::array<float, 256> map{};
    std::size_t filled = 0;
    constexpr double decades[] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0};
    for (int i = 0; i < 7; ++i) {
        const int steps = (is_signed ? 1 : 2) << i;
        const float step = (1.0f - 0.1f) / static_cast<float>(steps);
        // As torch.linspace(0.1, 1, steps + 1): from the nearer end, rounded once.
        const auto boundary = [&](int k) {
            return static_cast<float>(k < (steps + 1) / 2 ? double(0.1f) + double(step) * k
                                                          : 1 - double(step) * (steps - k));
        };
        for (int k = 0; k < steps; ++k) {
            const float mean = (boundary(k) + boundary(k + 1)) / 2;
            map[filled++] = static_cast<float>(decades[i]) * mean;
            if (is_signed) {
                map[filled++] = -static_cast<float>(decades[i]) * mean;
            }
        }
    }
    map[filled++] = 0;
    map[filled++] = 1;
    std::sort(map.begin(), map.end());
    return map;
}

} // namespace detail

/// The numbers in rising order, from -0.993 over 0 (code 127) to 1: in each decade from 10⁻⁶ to 1 twice as many as in
/// the one below, evenly spread. Dettmers, "8-bit approximations for parallelism in deep learning", 2015; bit for bit
/// what bitsandbytes makes with torch.linspace.
inline constexpr std::array<float, 256> dynamic_map = detail::make_dynamic_map(true);

/// Those of the unsigned type: from 0 (code 0) to 1, twice as many in each decade.
inline constexpr std::array<float, 256> unsigned_dynamic_map = detail::make_dynamic_map(false);

/// The code whose number is nearest to x, for |x| <= 1, by the search of bitsandbytes' CUDA kernel: of two that are
/// equally near it takes the one that the search came by. NaN gets code 0.
inline std::uint8_t dynamic_code(float x) {
    int pivot = 127, below = 0, above = 255;
    for (int step = 64; step > 0; step /= 2) {
        if (x > dynamic_map[static_cast<std::size_t>(pivot)]) {
            below = pivot;
            pivot += step;
        } else {
            above = pivot;
            pivot -= step;
        }
    }
    const float value = dynamic_map[static_cast<std::size_t>(pivot)];
    if (x > value) {
        const float middle = (dynamic_map[static_cast<std::size_t>(above)] + value) * 0.5f;
        return static_cast<std::uint8_t>(x > middle ? above : pivot);
    }
    const float middle = (dynamic_map[static_cast<std::size_t>(below)] + value) * 0.5f;
    return static_cast<std::uint8_t>(x < middle ? below : pivot);
}

} // namespace lowrank
