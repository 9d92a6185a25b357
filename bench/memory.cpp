// What reads and writes memory: elementwise formulas, norms, softmax, the optimizer. Bytes count once each.
#include "lowrank/autograd/backward.hpp"
#include "lowrank/backend/cpu/optimizer.hpp"
#include "lowrank/ops/elementwise.hpp"
#include "lowrank/ops/layer_norm.hpp"
#include "lowrank/ops/softmax.hpp"
#include "measure.hpp"

namespace {

using namespace lowrank;

constexpr std::int64_t rows = 4096, width = 3072; // 50 MB: more than caches hold
constexpr double matrix_bytes = 4.0 * rows * width;

template <class Op>
void forward(benchmark::State& state, double matrices, const Op& op) {
    const auto x = Tensor<float>::full({rows, width}, 0.5f);
    const NoGrad no_grad;
    bench::memory_bound(state, matrices * matrix_bytes, [&] { op(x); });
}

void add(benchmark::State& state) {
    forward(state, 3, [y = Tensor<float>::full({rows, width}, 1.5f)](const auto& x) { return x + y; });
}
void gelu_tanh(benchmark::State& state) {
    forward(state, 2, [](const auto& x) { return gelu(x, GeluKind::tanh); });
}
void softmax_rows(benchmark::State& state) {
    forward(state, 2, [](const auto& x) { return softmax(x); });
}
void layer_norm_rows(benchmark::State& state) {
    forward(state, 2, [w = Tensor<float>::full({width}, 1.f), b = Tensor<float>::zeros({width})](const auto& x) {
        return layer_norm(x, w, b, 1e-5);
    });
}
void adamw(benchmark::State& state) {
    constexpr std::int64_t n = rows * width;
    std::vector<float> parameter(n, 1.f), m(n, 0.f), v(n, 0.f), gradient(n, 0.1f);
    const std::vector<float> scalars(8, 0.5f);
    bench::memory_bound(state, 7 * matrix_bytes, [&] {
        adamw_step(Cpu{}, n, parameter.data(), m.data(), v.data(), gradient.data(), scalars.data(), 0.9, 0.999, 1e-8);
    });
}

BENCHMARK(add)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(gelu_tanh)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(softmax_rows)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(layer_norm_rows)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(adamw)->UseManualTime()->Unit(benchmark::kMillisecond);

} // namespace
