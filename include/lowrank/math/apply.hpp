// What a kernel computes with an op's formula: its value, and its derivatives times the gradient that arrives.
#pragma once

#include "lowrank/math/binary.hpp"
#include "lowrank/math/unary.hpp"

namespace lowrank::math {

/// f of a unary or binary op.
template <class Op>
struct Value {
    Op op;
    template <class V>
    LOWRANK_HD V operator()(V x) const {
        return op.f(x);
    }
    template <class V>
    LOWRANK_HD V operator()(V a, V b) const {
        return op.f(a, b);
    }
};

/// dy · df of a unary op, at what it saved.
template <class Op>
struct Gradient {
    Op op;
    template <class V>
    LOWRANK_HD V operator()(V dy, V saved) const {
        return dy * op.df(saved);
    }
};

/// dy · da of a binary op.
template <class Op>
struct GradientA {
    Op op;
    template <class V>
    LOWRANK_HD V operator()(V dy, V a, V b) const {
        return dy * op.da(a, b);
    }
};

/// dy · db of a binary op.
template <class Op>
struct GradientB {
    Op op;
    template <class V>
    LOWRANK_HD V operator()(V dy, V a, V b) const {
        return dy * op.db(a, b);
    }
};

} // namespace lowrank::math
