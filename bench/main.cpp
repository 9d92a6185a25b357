// lowrank_bench: every benchmark of the project, with Google Benchmark's options (--benchmark_filter=matmul), or with
// --peaks alone the machine's peaks as JSON.
#include <algorithm>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include <benchmark/benchmark.h>

#include "lowrank/core/parallel.hpp"
#include "lowrank/simd/dispatch.hpp"
#include "lowrank/version.hpp"
#include "peak.hpp"

namespace {

/// The median of many, which says more about a machine that others share than its best moment.
double median(double (*peak)(), std::size_t count) {
    std::vector<double> values(count);
    std::generate(values.begin(), values.end(), peak);
    std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(count / 2), values.end());
    return values[count / 2];
}

} // namespace

int main(int argc, char** argv) {
    if (argc == 2 && std::string_view(argv[1]) == "--peaks") {
        std::printf("{\"gflops\": %.2f, \"tile_gflops\": %.2f, \"read_gbs\": %.3f}\n", median(bench::peak_gflops, 41),
                    median(bench::tile_gflops, 41), median(bench::peak_read_gbs, 11));
        return 0;
    }
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
        return 2;
    }
    benchmark::AddCustomContext("instruction set", std::string(lowrank::simd::name_of(lowrank::simd::active_isa())));
    benchmark::AddCustomContext("threads", std::to_string(lowrank::num_threads()));
    benchmark::AddCustomContext("peak GFLOP/s", std::to_string(bench::peak_gflops()));
    benchmark::AddCustomContext("tile GFLOP/s", std::to_string(bench::tile_gflops()));
    benchmark::AddCustomContext("peak read GB/s", std::to_string(bench::peak_read_gbs()));
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return 0;
}
