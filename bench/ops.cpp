// Every op of the list that the tests check (tests/op_list.hpp), forward and with its backward. The bytes of inputs and
// outputs count once each, and with the backward their gradients too; attention is not bound by them.
#include "lowrank/autograd/backward.hpp"
#include "measure.hpp"
#include "op_list.hpp"

namespace {

using namespace lowrank;

/// Op `i` of the list, on rows of GPT-2's width. Attention's cost grows with the square of their number, that of the
/// others in proportion.
const testing::OpExample<float>& op_at(std::size_t i) {
    constexpr std::int64_t width = 768 / 4;
    static const auto few = testing::op_list<float>(100, width), many = testing::op_list<float>(1000, width);
    return many[i].name.ends_with("attention") ? few[i] : many[i];
}

void one_op(benchmark::State& state, std::size_t i, bool backward_too) {
    const testing::OpExample<float>& op = op_at(i);
    std::vector<Tensor<float>> inputs;
    std::int64_t values = 0;
    for (const Tensor<float>& input : op.inputs) {
        inputs.push_back(backward_too ? leaf(input) : input);
        values += input.numel();
    }
    Tensor<float> output;
    {
        const NoGrad no_grad;
        output = op.f(inputs);
        values += output.numel();
    }
    const auto ones = Tensor<float>::full(output.shape(), 1.f);
    bench::memory_bound(state, static_cast<double>(values) * 4 * (backward_too ? 2 : 1), [&] {
        if (backward_too) {
            Gradients gradients;
            backward(op.f(inputs), ones, gradients);
        } else {
            const NoGrad no_grad;
            op.f(inputs);
        }
    });
}

const int registered = [] {
    const auto names = testing::op_list<float>();
    for (std::size_t i = 0; i < names.size(); ++i) {
        for (const bool backward_too : {false, true}) {
            const std::string name = concat("op/", names[i].name, backward_too ? "/forward_and_backward" : "/forward");
            benchmark::RegisterBenchmark(name.c_str(), one_op, i, backward_too)
                ->UseManualTime()
                ->Unit(benchmark::kMicrosecond);
        }
    }
    return 0;
}();

} // namespace
