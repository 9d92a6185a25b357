#include "peak.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include "lowrank/backend/cpu/matmul.hpp"
#include "lowrank/core/parallel.hpp"
#include "lowrank/simd/dispatch.hpp"
#include "lowrank/simd/memory.hpp"

namespace bench {
namespace {

using namespace lowrank;

double seconds_of(const auto& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Independent sums: more than latency × units of any of these CPUs, and fewer than its registers.
constexpr int chains_of(int width) {
    return width == 16 ? 24 : 12;
}

#if defined(__x86_64__)
/// Four products of tiles a step.
LOWRANK_TARGET_AMX_BF16 __attribute__((noinline)) void multiply_amx(std::int64_t steps) {
    using namespace lowrank::detail;
    const AmxRegisters registers;
    zero_tile<0>();
    zero_tile<1>();
    zero_tile<2>();
    zero_tile<3>();
    zero_tile<4>();
    zero_tile<5>();
    zero_tile<6>();
    zero_tile<7>();
    for (std::int64_t i = 0; i < steps; ++i) {
        multiply_tiles<0, 4, 6>();
        multiply_tiles<1, 4, 7>();
        multiply_tiles<2, 5, 6>();
        multiply_tiles<3, 5, 7>();
    }
}
#endif

/// Multiply-adds of floats, or of pairs of bf16.
template <lowrank::detail::Packed Kind>
struct MultiplyAdd {
    template <int Width>
    LOWRANK_INLINE static void run(std::int64_t steps, float* values) {
        using V = simd::Vec<float, Width>;
        constexpr int chains = chains_of(Width);
        const V x = simd::load<V>(values), y = simd::load<V>(values + Width);
        V sums[chains];
#pragma GCC unroll 24
        for (int i = 0; i < chains; ++i) {
            sums[i] = V(static_cast<float>(i));
        }
        for (std::int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 24
            for (int i = 0; i < chains; ++i) {
                if constexpr (Kind == lowrank::detail::Packed::bf16_pairs) {
                    sums[i] = simd::accumulate_pairs(sums[i], x, y);
                } else {
                    sums[i] = fma(sums[i], x, y);
                }
            }
        }
#pragma GCC unroll 24
        for (int i = 0; i < chains; ++i) {
            simd::store(sums[i], values + i * Width);
        }
    }
};

struct MultiplyTile {
    static constexpr std::int64_t k = 96; // 18 KiB of b, 3 KiB of a

    template <int Width>
    LOWRANK_INLINE static void run(std::int64_t steps, const float* a, const float* b, float* c) {
        constexpr int rows = detail::tile_rows_of(Width), vectors = detail::tile_vectors_of(Width);
        detail::multiply_tile<float, Width, rows, vectors>(a, 1, rows, b, vectors * Width, c, vectors * Width, steps,
                                                           true);
    }
};

struct ReadAll {
    template <int Width>
    LOWRANK_INLINE static void run(std::int64_t n, const float* values, float* sum) {
        using V = simd::Vec<float, Width>;
        V sums[4] = {V(0.f), V(0.f), V(0.f), V(0.f)};
        for (std::int64_t i = 0; i + 4 * Width <= n; i += 4 * Width) {
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) {
                sums[j] = sums[j] + simd::load<V>(values + i + j * Width);
            }
        }
        simd::store((sums[0] + sums[1]) + (sums[2] + sums[3]), sum);
    }
};

constexpr std::int64_t line = 24 * 16; // floats of a thread's results

/// GFLOP/s of multiply-adds in registers.
template <lowrank::detail::Packed Kind>
double register_gflops() {
    constexpr std::int64_t steps = 500'000;
    const int width = simd::width_of(simd::active_isa());
    const std::int64_t threads = num_threads();
    std::vector<float> values(static_cast<std::size_t>(threads * line), 0.5f);
    const double seconds = seconds_of([&] {
        parallel_for(threads,
                     [&](std::int64_t i) { simd::run_for_isa<MultiplyAdd<Kind>>(steps, values.data() + i * line); });
    });
    const double flops = Kind == lowrank::detail::Packed::bf16_pairs ? 4 : 2; // of a lane and step
    return 1e-9 * flops * static_cast<double>(steps * chains_of(width) * width * threads) / seconds;
}

} // namespace

double peak_gflops() {
    return register_gflops<lowrank::detail::Packed::values>();
}

double peak_bf16_gflops() {
    const auto tile = lowrank::detail::MatmulTile::of<bf16>(simd::active_isa());
#if defined(__x86_64__)
    if (tile.is_amx) {
        const std::int64_t threads = num_threads();
        constexpr std::int64_t steps = 400'000;
        const double seconds = seconds_of([&] { parallel_for(threads, [&](std::int64_t) { multiply_amx(steps); }); });
        return 2e-9 * static_cast<double>(steps * threads) * 4 * 16 * 16 * 32 / seconds;
    }
#endif
    return tile.kind == lowrank::detail::Packed::values ? peak_gflops()
                                                        : register_gflops<lowrank::detail::Packed::bf16_pairs>();
}

double tile_gflops() {
    constexpr std::int64_t times = 50'000, a_size = 16 * MultiplyTile::k, b_size = 48 * MultiplyTile::k;
    const int width = simd::width_of(simd::active_isa());
    const std::int64_t threads = num_threads(),
                       c_size = detail::tile_rows_of(width) * detail::tile_vectors_of(width) * width;
    const std::int64_t size = a_size + b_size + 1024;
    std::vector<float> memory(static_cast<std::size_t>(threads * size), 0.0f);
    const double seconds = seconds_of([&] {
        parallel_for(threads, [&](std::int64_t i) {
            float* a = memory.data() + i * size;
            for (std::int64_t t = 0; t < times; ++t) {
                simd::run_for_isa<MultiplyTile>(MultiplyTile::k, a, a + a_size, a + a_size + b_size);
            }
        });
    });
    return 2e-9 * static_cast<double>(times * MultiplyTile::k * c_size * threads) / seconds;
}

double peak_read_gbs() {
    static const std::vector<float> values(std::size_t(64) << 20, 1.0f);
    constexpr std::int64_t parts = 64;
    const std::int64_t part = std::ssize(values) / parts;
    std::vector<float> sums(static_cast<std::size_t>(parts * line));
    const double seconds = seconds_of([&] {
        parallel_for(parts, [&](std::int64_t i) {
            simd::run_for_isa<ReadAll>(part, values.data() + i * part, sums.data() + i * line);
        });
    });
    return 4e-9 * static_cast<double>(values.size()) / seconds;
}

} // namespace bench
