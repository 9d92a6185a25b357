#include "peak.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

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

constexpr int chains = 12; // more than latency × units of any of these CPUs, and fewer than its registers

struct MultiplyAdd {
    template <int Width>
    LOWRANK_INLINE static void run(std::int64_t steps, float* values) {
        using V = simd::Vec<float, Width>;
        const V x = simd::load<V>(values), y = simd::load<V>(values + Width);
        V sums[chains];
#pragma GCC unroll 12
        for (int i = 0; i < chains; ++i) {
            sums[i] = V(static_cast<float>(i));
        }
        for (std::int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 12
            for (int i = 0; i < chains; ++i) {
                sums[i] = fma(sums[i], x, y);
            }
        }
#pragma GCC unroll 12
        for (int i = 0; i < chains; ++i) {
            simd::store(sums[i], values + i * Width);
        }
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

constexpr std::int64_t line = chains * 16; // floats of a thread's results

} // namespace

double peak_gflops() {
    constexpr std::int64_t steps = 500'000;
    const std::int64_t threads = num_threads(), width = simd::width_of(simd::active_isa());
    std::vector<float> values(static_cast<std::size_t>(threads * line), 0.5f);
    const double seconds = seconds_of([&] {
        parallel_for(threads, [&](std::int64_t i) { simd::run_for_isa<MultiplyAdd>(steps, values.data() + i * line); });
    });
    return 2e-9 * static_cast<double>(steps * chains * width * threads) / seconds;
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
