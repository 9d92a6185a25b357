// Elementwise functions of one argument and numbers known at run time: what a tensor and scalars are combined with.
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

/// x to the power `exponent`. The usual ones take no logarithm but products, a root and a division, as in PyTorch: at
/// most three roundings, and a negative infinity has no root, as any negative x.
struct Power {
    static constexpr const char* name = "power";
    static constexpr Saves saves = Saves::input;
    double exponent;

    template <class V>
    LOWRANK_HD V f(V x) const {
        return of(x, exponent);
    }
    /// 0 for the exponent 0, also at x = 0.
    template <class V>
    LOWRANK_HD V df(V x) const {
        return V(exponent) * of(x, exponent == 0 ? 0 : exponent - 1);
    }

  private:
    template <class V>
    static LOWRANK_HD V of(V x, double exponent) {
        const double size = exponent < 0 ? -exponent : exponent;
        if (size == 0) {
            return V(1);
        }
        if (size == 0.5) {
            return exponent < 0 ? V(1) / sqrt(x) : sqrt(x);
        }
        if (size == 1 || size == 2 || size == 3) {
            const V power = size == 1 ? x : size == 2 ? x * x : x * x * x;
            return exponent < 0 ? V(1) / power : power;
        }
        return pow(x, V(exponent));
    }
};

/// x between `low` and `high`; the derivative at these is 0. `high` where low is above it. A NaN stays.
struct Clamp {
    static constexpr const char* name = "clamp";
    static constexpr Saves saves = Saves::input;
    double low, high;

    template <class V>
    LOWRANK_HD V f(V x) const {
        return min(max(x, V(low)), V(high));
    }
    template <class V>
    LOWRANK_HD V df(V x) const {
        return select(x > V(low), select(x < V(high), V(1), V(0)), V(0));
    }
};

} // namespace lowrank::math
