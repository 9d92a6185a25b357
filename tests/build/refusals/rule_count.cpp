// Must not compile: a rule gives one gradient for each input.
// Message: the rule of a custom_op must return one gradient for each input
#include <lowrank/autograd/record.hpp>

auto f(const lowrank::Tensor<float>& x) {
    return lowrank::custom_op(
        x, [](const auto& dy) { return std::make_tuple(dy); }, x, x);
}
