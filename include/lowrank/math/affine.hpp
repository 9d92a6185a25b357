// Elementwise functions of one argument and a number known at run time: what a tensor and a scalar are combined with.
#pragma once

#include "lowrank/math/unary.hpp"

namespace lowrank::math {

/// x·scale + shift.
struct Affine {
    static constexpr const char* name = "affine";
    static constexpr Saves saves = Saves::nothing;
    double scale, shift;

    template <class V>
    LOWRANK_HD V f(V x) const {
        return fma(x, V(scale), V(shift));
    }
    template <class V>
    LOWRANK_HD V df(V) const {
        return V(scale);
    }
};

/// x / divisor.
struct DivideBy {
    static constexpr const char* name = "divide_by";
    static constexpr Saves saves = Saves::nothing;
    double divisor;

    template <class V>
    LOWRANK_HD V f(V x) const {
        return x / V(divisor);
    }
    template <class V>
    LOWRANK_HD V df(V) const {
        return V(1) / V(divisor);
    }
};

/// dividend / x.
struct Divide {
    static constexpr const char* name = "divide";
    static constexpr Saves saves = Saves::input;
    double dividend;

    template <class V>
    LOWRANK_HD V f(V x) const {
        return V(dividend) / x;
    }
    template <class V>
    LOWRANK_HD V df(V x) const {
        return -(V(dividend) / x) / x;
    }
};

} // namespace lowrank::math
