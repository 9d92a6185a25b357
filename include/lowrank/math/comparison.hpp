// Comparisons of two arguments, which give 1 or 0 and have no derivative, and the choice between two by such a mask.
#pragma once

#include "lowrank/math/macros.hpp"
#include "lowrank/math/scalar.hpp"

namespace lowrank::math {

// A NaN is unequal to everything, and neither greater nor less.

struct Greater {
    static constexpr const char* name = "greater";
    template <class V>
    static LOWRANK_HD V f(V a, V b) {
        return select(a > b, V(1), V(0));
    }
};

struct GreaterEqual {
    static constexpr const char* name = "greater_equal";
    template <class V>
    static LOWRANK_HD V f(V a, V b) {
        return select(a >= b, V(1), V(0));
    }
};

struct Less {
    static constexpr const char* name = "less";
    template <class V>
    static LOWRANK_HD V f(V a, V b) {
        return select(a < b, V(1), V(0));
    }
};

struct LessEqual {
    static constexpr const char* name = "less_equal";
    template <class V>
    static LOWRANK_HD V f(V a, V b) {
        return select(a <= b, V(1), V(0));
    }
};

struct Equal {
    static constexpr const char* name = "equal";
    template <class V>
    static LOWRANK_HD V f(V a, V b) {
        return select(a == b, V(1), V(0));
    }
};

struct NotEqual {
    static constexpr const char* name = "not_equal";
    template <class V>
    static LOWRANK_HD V f(V a, V b) {
        return select(a == b, V(0), V(1));
    }
};

/// a where the mask is not 0, b elsewhere.
struct Choose {
    template <class V>
    LOWRANK_HD V operator()(V mask, V a, V b) const {
        return select(mask == V(0), b, a);
    }
};

} // namespace lowrank::math
