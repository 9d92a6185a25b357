// The list of elementwise ops: what drives their tests, benchmarks and the kernels that are compiled ahead.
#pragma once

#include <type_traits>

#include "lowrank/math/binary.hpp"
#include "lowrank/math/comparison.hpp"
#include "lowrank/math/unary.hpp"

namespace lowrank::math {

template <class... Ops>
struct OpList {};

using UnaryOps = OpList<Neg, Exp, Log, Sqrt, Rsqrt, Square, Abs, Tanh, Sigmoid, Relu, SiLU, GeluTanh, GeluErf>;
using BinaryOps = OpList<Add, Sub, Mul, Div, Pow, Maximum, Minimum>;
using ComparisonOps = OpList<Greater, GreaterEqual, Less, LessEqual, Equal, NotEqual>;

/// Calls visitor(std::type_identity<Op>()) for each op of a list.
template <class... Ops, class Visitor>
void for_each(OpList<Ops...>, const Visitor& visitor) {
    (visitor(std::type_identity<Ops>()), ...);
}

} // namespace lowrank::math
