// One measurement: the best time of several, as a rate and as a part of the machine's peak around it.
#pragma once

#include <algorithm>
#include <chrono>
#include <concepts>
#include <limits>

#include <benchmark/benchmark.h>

#include "lowrank/core/scalar.hpp"
#include "peak.hpp"

namespace bench {

/// Runs `work` for each iteration, after once without counting, and returns its best seconds.
template <class Work>
double best_seconds(benchmark::State& state, const Work& work) {
    using Clock = std::chrono::steady_clock;
    work(); // pages and caches as a later call finds them
    double best = std::numeric_limits<double>::infinity();
    for (auto _ : state) {
        const auto start = Clock::now();
        work();
        const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
        state.SetIterationTime(seconds);
        best = std::min(best, seconds);
    }
    state.counters["best_s"] = best;
    return best;
}

/// Reports `amount` a second, in units of 1e9, at its best, beside the better of the peaks measured before and after.
template <class Work>
void measure(benchmark::State& state, double amount, const char* unit, double (*peak)(), const Work& work) {
    const double before = peak();
    const double rate = 1e-9 * amount / best_seconds(state, work);
    const double highest = std::max(before, peak());
    state.counters[unit] = rate;
    state.counters["peak"] = highest;
    state.counters["of_peak"] = rate / highest;
}

/// For work that is bound by arithmetic on T, float or bf16: a multiply-add counts as two operations.
template <class T = float, class Work>
void compute_bound(benchmark::State& state, double flops, const Work& work) {
    measure(state, flops, "GFLOP/s", std::same_as<T, lowrank::bf16> ? peak_bf16_gflops : peak_gflops, work);
}

/// For work that is bound by memory: the bytes that it must read and write, each once.
template <class Work>
void memory_bound(benchmark::State& state, double bytes, const Work& work) {
    measure(state, bytes, "GB/s", peak_read_gbs, work);
}

} // namespace bench
