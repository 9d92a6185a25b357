// Causal attention of GPT-2 124M's heads, forward and with its backward, by length.
#include "lowrank/ops/attention.hpp"

#include <string>

#include "lowrank/autograd/backward.hpp"
#include "lowrank/ops/reduce.hpp"
#include "measure.hpp"

namespace {

using namespace lowrank;

template <class T>
void attend(benchmark::State& state, bool backward_too) {
    const std::int64_t length = state.range(0), heads = 12, width = 64;
    const auto input = [&] { return Tensor<T>::full({1, length, heads, width}, T(0.125f)); };
    const auto q = leaf(input()), k = leaf(input()), v = leaf(input());
    // Two products forward and five backward, each of half a square of scores.
    const double product = static_cast<double>(heads * width * length * length);
    bench::compute_bound<T>(state, product * (backward_too ? 7 : 2), [&] {
        if (backward_too) {
            backward(sum(attention(q, k, v)));
        } else {
            const NoGrad no_grad;
            attention(q, k, v);
        }
    });
}

const int registered = [] {
    for (const bool backward_too : {false, true}) {
        for (const bool is_bf16 : {false, true}) {
            const std::string name =
                concat(is_bf16 ? "attend_bf16" : "attend", backward_too ? "/forward_and_backward" : "/forward");
            benchmark::RegisterBenchmark(name.c_str(), is_bf16 ? attend<bf16> : attend<float>, backward_too)
                ->RangeMultiplier(4)
                ->Range(64, 4096)
                ->UseManualTime();
        }
    }
    return 0;
}();

} // namespace
