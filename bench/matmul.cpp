// The matrix products of GPT-2 124M: forward (weights as Conv1D stores them), input gradient, the head; many rows and
// few; in fp32 and in bf16.
#include "lowrank/backend/cpu/matmul.hpp"

#include "measure.hpp"

namespace {

using namespace lowrank;

/// y [m, out] = x · Wᵀ, or with `gradient` dx [m, in] = dy · W, all of them of T.
template <class T>
void product(benchmark::State& state, std::int64_t m, std::int64_t in, std::int64_t out, Orientation orientation,
             bool gradient) {
    const std::int64_t k = gradient ? out : in, n = gradient ? in : out;
    const DenseWeight<T, Cpu> weight(
        Tensor<T>::full(orientation == Orientation::in_out ? Shape{in, out} : Shape{out, in}, T(0.5f)), orientation);
    const auto x = Tensor<T>::full({m, k}, T(0.25f));
    auto y = Tensor<T>::empty({m, n});
    MatrixOperand<T, Cpu> factor;
    factor.weight = &weight;
    factor.transposed = gradient;
    const MatmulSegment<T, Cpu> segment{matrix(x.data(), k), factor, k};
    const auto work = [&] { matmul(Cpu{}, m, n, std::span(&segment, 1), y.mutable_data(), MatmulEpilogue<T>{}); };
    if (m > 16) {
        bench::compute_bound<T>(state, 2.0 * static_cast<double>(m * n * k), work);
    } else { // the weights are read once
        bench::memory_bound(state, double(sizeof(T)) * static_cast<double>(n * k + m * (n + k)), work);
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
                const std::string name = concat("/", layer.name, gradient ? "/gradient" : "/forward", "/m:", m);
                for (const bool is_bf16 : {false, true}) {
                    benchmark::RegisterBenchmark(concat(is_bf16 ? "matmul_bf16" : "matmul", name).c_str(),
                                                 is_bf16 ? product<bf16> : product<float>, m, layer.in, layer.out,
                                                 layer.orientation, gradient)
                        ->UseManualTime()
                        ->Unit(benchmark::kMillisecond);
                }
            }
        }
    }
    return 0;
}();

} // namespace
