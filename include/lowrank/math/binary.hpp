// Elementwise functions of two arguments, each with its two partial derivatives: one struct per op.
#pragma once

#include "lowrank/math/macros.hpp"

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

} // namespace lowrank::math
