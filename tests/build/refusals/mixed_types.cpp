// Must not compile: two tensors of different types are not added.
// Message: no match for|cannot convert|no matching function|deduced conflicting types|invalid operands
#include <lowrank/ops/elementwise.hpp>

auto sum = lowrank::Tensor<float>::zeros({2}) + lowrank::Tensor<double>::zeros({2});
