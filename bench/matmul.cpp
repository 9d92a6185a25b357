// The matrix products of GPT-2 124M: forward (weights as Conv1D stores them), input gradient, the head; many rows and
// few.
#include "lowrank/backend/cpu/matmul.hpp"

#include "measure.hpp"

namespace {

using namespace lowrank;

/// y [m, out] = x · Wᵀ, or with `gradient` dx [m, in] = dy · W.
void product(benchmark::State& state, std::int64_t m, std::int64_t in, std::int64_t out, Orientation orientation,
             bool gradient) {
    const std::int64_t k = gradient ? out : in, n = gradient ? in : out;
    const WeightSlot<float, Cpu> weight(
        Tensor<float>::full(orientation == Orientation::in_out ? Shape{in, out} : Shape{out, in}, 0.5f), orientation);
    const auto x = Tensor<float>::full({m, k}, 0.25f);
    auto y = Tensor<float>::empty({m, n});
    const MatmulSegment<float, Cpu> segment{matrix(x.data(), k), MatrixOperand<float, Cpu>(weight, gradient), k};
    const auto work = [&] { matmul(Cpu{}, m, n, std::span(&segment, 1), y.mutable_data(), MatmulEpilogue<float>{}); };
    if (m > 16) {
        bench::compute_bound(state, 2.0 * static_cast<double>(m * n * k), work);
    } else { // the weights are read once
        bench::memory_bound(state, 4.0 * static_cast<double>(n * k + m * (n + k)), work);
    }
}

const int registered = [] {
    struct Layer {
        const char* name;
        std::int64_t in, out;
        Orientation orientation;
    };
    for (const std::int64_t m : {1024, 256, 4, 1}) {
        for (const Layer& layer : {Layer{"c_attn", 768, 2304, Orientation::in_out},
                                   {"attn.c_proj", 768, 768, Orientation::in_out},
                                   {"c_fc", 768, 3072, Orientation::in_out},
                                   {"mlp.c_proj", 3072, 768, Orientation::in_out},
                                   {"lm_head", 768, 50257, Orientation::out_in}}) {
            for (const bool gradient : {false, true}) {
                if (gradient && m < 16) {
                    continue; // few rows are for generation
                }
                const std::string name = concat("matmul/", layer.name, gradient ? "/gradient" : "/forward", "/m:", m);
                benchmark::RegisterBenchmark(name.c_str(), product, m, layer.in, layer.out, layer.orientation, gradient)
                    ->UseManualTime()
                    ->Unit(benchmark::kMillisecond);
            }
        }
    }
    return 0;
}();

} // namespace
