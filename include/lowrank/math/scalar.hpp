// The functions that formulas call, for float and double: a SIMD vector brings its own, found by its namespace.
#pragma once

#include <cmath>
#include <type_traits>

#include "lowrank/math/macros.hpp"

namespace lowrank::math {

template <class T>
using if_scalar = std::enable_if_t<std::is_floating_point_v<T>, T>;

template <class T>
LOWRANK_HD if_scalar<T> exp(T x) {
    return std::exp(x);
}
template <class T>
LOWRANK_HD if_scalar<T> log(T x) {
    return std::log(x);
}
template <class T>
LOWRANK_HD if_scalar<T> sqrt(T x) {
    return std::sqrt(x);
}
template <class T>
LOWRANK_HD if_scalar<T> tanh(T x) {
    return std::tanh(x);
}
template <class T>
LOWRANK_HD if_scalar<T> erf(T x) {
    return std::erf(x);
}
template <class T>
LOWRANK_HD if_scalar<T> pow(T x, T exponent) {
    return std::pow(x, exponent);
}
template <class T>
LOWRANK_HD if_scalar<T> abs(T x) {
    return std::abs(x);
}
/// a·b + c, in one rounding or two, as the target does it fast.
template <class T>
LOWRANK_HD if_scalar<T> fma(T a, T b, T c) {
    return a * b + c;
}
template <class T>
LOWRANK_HD if_scalar<T> select(bool condition, T a, T b) {
    return condition ? a : b;
}
/// The smaller; a where either is NaN (so a NaN in a is kept).
template <class T>
LOWRANK_HD if_scalar<T> min(T a, T b) {
    return b < a ? b : a;
}
/// The larger; a where either is NaN (so a NaN in a is kept).
template <class T>
LOWRANK_HD if_scalar<T> max(T a, T b) {
    return b > a ? b : a;
}

} // namespace lowrank::math
