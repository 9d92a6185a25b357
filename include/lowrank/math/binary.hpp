// Elementwise functions of two arguments, each with its two partial derivatives: one struct per op.
#pragma once

#include "lowrank/math/macros.hpp"
#include "lowrank/math/scalar.hpp"

namespace lowrank::math {

/// Which arguments a derivative reads: what the graph keeps for it. Any value may stand for the others.
struct Reads {
    bool a, b;
};

// `da` and `db` are the derivatives by a and by b at (a, b).

struct Add {
    static constexpr const char* name = "add";
    static constexpr Reads da_reads{false, false}, db_reads{false, false};
    template <class V>
    static LOWRANK_HD V f(V a, V b) {
        return a + b;
    }
    template <class V>
    static LOWRANK_HD V da(V, V) {
        return V(1);
    }
    template <class V>
    static LOWRANK_HD V db(V, V) {
        return V(1);
    }
};

struct Sub {
    static constexpr const char* name = "sub";
    static constexpr Reads da_reads{false, false}, db_reads{false, false};
    template <class V>
    static LOWRANK_HD V f(V a, V b) {
        return a - b;
    }
    template <class V>
    static LOWRANK_HD V da(V, V) {
        return V(1);
    }
    template <class V>
    static LOWRANK_HD V db(V, V) {
        return V(-1);
    }
};

struct Mul {
    static constexpr const char* name = "mul";
    static constexpr Reads da_reads{false, true}, db_reads{true, false};
    template <class V>
    static LOWRANK_HD V f(V a, V b) {
        return a * b;
    }
    template <class V>
    static LOWRANK_HD V da(V, V b) {
        return b;
    }
    template <class V>
    static LOWRANK_HD V db(V a, V) {
        return a;
    }
};

struct Div {
    static constexpr const char* name = "div";
    static constexpr Reads da_reads{false, true}, db_reads{true, true};
    template <class V>
    static LOWRANK_HD V f(V a, V b) {
        return a / b;
    }
    template <class V>
    static LOWRANK_HD V da(V, V b) {
        return V(1) / b;
    }
    template <class V>
    static LOWRANK_HD V db(V a, V b) {
        return -(a / b) / b;
    }
};

/// a to the power b, as the C library's pow: NaN for a negative a and a b that is no integer.
struct Pow {
    static constexpr const char* name = "pow";
    static constexpr Reads da_reads{true, true}, db_reads{true, true};
    template <class V>
    static LOWRANK_HD V f(V a, V b) {
        return pow(a, b);
    }
    template <class V>
    static LOWRANK_HD V da(V a, V b) {
        return select(b == V(0), V(0), b * pow(a, b - V(1)));
    }
    /// 0 where a is 0 and b is not negative, as a^b is 0 around there.
    template <class V>
    static LOWRANK_HD V db(V a, V b) {
        const V slope = pow(a, b) * log(a);
        return select(a == V(0), select(b >= V(0), V(0), slope), slope);
    }
};

/// The larger; NaN where either is. Where both are equal, each gets half of the gradient.
struct Maximum {
    static constexpr const char* name = "maximum";
    static constexpr Reads da_reads{true, true}, db_reads{true, true};
    template <class V>
    static LOWRANK_HD V f(V a, V b) {
        return select(b == b, max(a, b), b);
    }
    template <class V>
    static LOWRANK_HD V da(V a, V b) {
        return select(a == b, V(0.5), select(a < b, V(0), V(1)));
    }
    template <class V>
    static LOWRANK_HD V db(V a, V b) {
        return da(b, a);
    }
};

/// The smaller; NaN where either is. Where both are equal, each gets half of the gradient.
struct Minimum {
    static constexpr const char* name = "minimum";
    static constexpr Reads da_reads{true, true}, db_reads{true, true};
    template <class V>
    static LOWRANK_HD V f(V a, V b) {
        return select(b == b, min(a, b), b);
    }
    template <class V>
    static LOWRANK_HD V da(V a, V b) {
        return Maximum::da(b, a);
    }
    template <class V>
    static LOWRANK_HD V db(V a, V b) {
        return Maximum::da(a, b);
    }
};

} // namespace lowrank::math
