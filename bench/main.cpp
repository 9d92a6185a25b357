// lowrank_bench: every benchmark of the project, with Google Benchmark's options (--benchmark_filter=matmul).
#include <string>

#include <benchmark/benchmark.h>

#include "lowrank/core/parallel.hpp"
#include "lowrank/simd/dispatch.hpp"
#include "lowrank/version.hpp"
#include "peak.hpp"

int main(int argc, char** argv) {
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
        return 2;
    }
    benchmark::AddCustomContext("instruction set", std::string(lowrank::simd::name_of(lowrank::simd::active_isa())));
    benchmark::AddCustomContext("threads", std::to_string(lowrank::num_threads()));
    benchmark::AddCustomContext("peak GFLOP/s", std::to_string(bench::peak_gflops()));
    benchmark::AddCustomContext("peak read GB/s", std::to_string(bench::peak_read_gbs()));
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return 0;
}
