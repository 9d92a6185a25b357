// NF4: products with a matrix in it, of many rows, and of few, which read 277 MB of codes and scales.
#include <memory>
#include <vector>

#include "lowrank/backend/cpu/matmul.hpp"
#include "lowrank/tensor/nf4_weight.hpp"
#include "measure.hpp"

namespace {

using namespace lowrank;

std::shared_ptr<const Weight<Cpu>> quantized(std::int64_t out, std::int64_t in, DType type) {
    const DenseWeight<float, Cpu> dense(Tensor<float>::full({out, in}, 0.5f), Orientation::out_in);
    return Nf4Weight<Cpu>::quantized(dense, {.double_quantization = true, .type = type});
}

/// y [m, out] = x · Wᵀ, or with `gradient` dx [m, in] = dy · W, for `count` weights one after the other.
void product(benchmark::State& state, int count, std::int64_t m, std::int64_t in, std::int64_t out, DType type,
             bool gradient) {
    const std::int64_t k = gradient ? out : in, n = gradient ? in : out;
    std::vector<WeightSlot<float, Cpu>> weights;
    double bytes = 0;
    for (int i = 0; i < count; ++i) {
        weights.emplace_back(quantized(out, in, type));
        bytes += static_cast<double>(weights.back().frozen()->bytes());
    }
    const auto x = Tensor<bf16>::full({m, k}, bf16(0.25f));
    auto y = Tensor<bf16>::empty({m, n});
    const auto work = [&] {
        for (const WeightSlot<float, Cpu>& weight : weights) {
            const MatmulSegment<bf16, Cpu> segment{matrix(x.data(), k), MatrixOperand<bf16, Cpu>(weight, gradient), k};
            matmul(Cpu{}, m, n, std::span(&segment, 1), y.mutable_data(), MatmulEpilogue<bf16>{});
        }
    };
    if (m > 16) {
        bench::compute_bound(state, 2.0 * static_cast<double>(count * m * n * k), work);
    } else {
        bench::memory_bound(state, bytes, work);
    }
}

const int registered = [] {
    const auto add = [](const std::string& name, auto... arguments) {
        benchmark::RegisterBenchmark(name.c_str(), product, arguments...)
            ->UseManualTime()
            ->Unit(benchmark::kMillisecond);
    };
    for (const DType type : {DType::bf16, DType::f32}) {
        const std::string of = concat("nf4/", name_of(type));
        for (const std::int64_t m : {1024, 256}) {
            add(concat(of, "/c_fc/forward/m:", m), 1, m, 768, 3072, type, false);
            add(concat(of, "/c_fc/gradient/m:", m), 1, m, 768, 3072, type, true);
        }
        for (const std::int64_t m : {4, 1}) {
            add(concat(of, "/277_MB_of_codes/m:", m), 16, m, 4096, 8192, type, false);
        }
    }
    return 0;
}();

} // namespace
