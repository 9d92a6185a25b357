// Causal attention of GPT-2 124M's heads, forward and with its backward, by length.
#include "lowrank/ops/attention.hpp"

#include "lowrank/autograd/backward.hpp"
#include "lowrank/ops/reduce.hpp"
#include "measure.hpp"

namespace {

using namespace lowrank;

void attend(benchmark::State& state, bool backward_too) {
    const std::int64_t length = state.range(0), heads = 12, width = 64;
    const auto input = [&] { return Tensor<float>::full({1, length, heads, width}, 0.125f); };
    const auto q = leaf(input()), k = leaf(input()), v = leaf(input());
    // Two products forward and five backward, each of half a square of scores.
    const double product = static_cast<double>(heads * width * length * length);
    bench::compute_bound(state, product * (backward_too ? 7 : 2), [&] {
        if (backward_too) {
            backward(sum(attention(q, k, v)));
        } else {
            const NoGrad no_grad;
            attention(q, k, v);
        }
    });
}

BENCHMARK_CAPTURE(attend, forward, false)->RangeMultiplier(4)->Range(64, 4096)->UseManualTime();
BENCHMARK_CAPTURE(attend, forward_and_backward, true)->RangeMultiplier(4)->Range(64, 4096)->UseManualTime();

} // namespace
