// Elementwise functions of one argument, each with its derivative: one struct per op, templated on its value type.
#pragma once

#include "lowrank/math/macros.hpp"
#include "lowrank/math/scalar.hpp"

namespace lowrank::math {

/// What `df` of an op receives, and so what the graph keeps for the backward pass: the argument x of `f`, its result y,
/// or a value that does not matter.
enum class Saves { nothing, input, output };

// V is float, double, a simd::Vec or a CUDA lane. Values at NaN and infinities are those of PyTorch on the CPU.

struct Neg {
    static constexpr const char* name = "neg";
    static constexpr Saves saves = Saves::nothing;
    template <class V>
    static LOWRANK_HD V f(V x) {
        return -x;
    }
    template <class V>
    static LOWRANK_HD V df(V) {
        return V(-1);
    }
};

struct Exp {
    static constexpr const char* name = "exp";
    static constexpr Saves saves = Saves::output;
    template <class V>
    static LOWRANK_HD V f(V x) {
        return exp(x);
    }
    template <class V>
    static LOWRANK_HD V df(V y) {
        return y;
    }
};

struct Log {
    static constexpr const char* name = "log";
    static constexpr Saves saves = Saves::input;
    template <class V>
    static LOWRANK_HD V f(V x) {
        return log(x);
    }
    template <class V>
    static LOWRANK_HD V df(V x) {
        return V(1) / x;
    }
};

struct Sqrt {
    static constexpr const char* name = "sqrt";
    static constexpr Saves saves = Saves::output;
    template <class V>
    static LOWRANK_HD V f(V x) {
        return sqrt(x);
    }
    template <class V>
    static LOWRANK_HD V df(V y) {
        return V(0.5) / y;
    }
};

struct Rsqrt {
    static constexpr const char* name = "rsqrt";
    static constexpr Saves saves = Saves::output;
    template <class V>
    static LOWRANK_HD V f(V x) {
        return V(1) / sqrt(x);
    }
    template <class V>
    static LOWRANK_HD V df(V y) {
        return V(-0.5) * (y * y * y);
    }
};

struct Square {
    static constexpr const char* name = "square";
    static constexpr Saves saves = Saves::input;
    template <class V>
    static LOWRANK_HD V f(V x) {
        return x * x;
    }
    template <class V>
    static LOWRANK_HD V df(V x) {
        return V(2) * x;
    }
};

/// The derivative at 0 is 0.
struct Abs {
    static constexpr const char* name = "abs";
    static constexpr Saves saves = Saves::input;
    template <class V>
    static LOWRANK_HD V f(V x) {
        return abs(x);
    }
    template <class V>
    static LOWRANK_HD V df(V x) {
        return select(x > V(0), V(1), select(x < V(0), V(-1), V(0)));
    }
};

struct Tanh {
    static constexpr const char* name = "tanh";
    static constexpr Saves saves = Saves::output;
    template <class V>
    static LOWRANK_HD V f(V x) {
        return tanh(x);
    }
    template <class V>
    static LOWRANK_HD V df(V y) {
        return V(1) - y * y;
    }
};

/// The logistic function 1 / (1 + e^-x).
struct Sigmoid {
    static constexpr const char* name = "sigmoid";
    static constexpr Saves saves = Saves::output;
    template <class V>
    static LOWRANK_HD V f(V x) {
        return V(1) / (V(1) + exp(-x));
    }
    template <class V>
    static LOWRANK_HD V df(V y) {
        return y * (V(1) - y);
    }
};

/// max(x, 0); the derivative at 0 is 0.
struct Relu {
    static constexpr const char* name = "relu";
    static constexpr Saves saves = Saves::output;
    template <class V>
    static LOWRANK_HD V f(V x) {
        return max(x, V(0));
    }
    template <class V>
    static LOWRANK_HD V df(V y) {
        return select(y <= V(0), V(0), V(1));
    }
};

/// The logistic function and its derivative, both to full relative accuracy for either sign: no 1 - s that cancels.
template <class V>
struct LogisticAndSlope {
    V value, slope;

    LOWRANK_HD explicit LogisticAndSlope(V x) {
        const V e = exp(-abs(x));
        const V upper = V(1) / (V(1) + e);
        value = select(x < V(0), e * upper, upper);
        slope = e * upper * upper;
    }
};

/// x·sigmoid(x), also called swish.
struct SiLU {
    static constexpr const char* name = "silu";
    static constexpr Saves saves = Saves::input;
    template <class V>
    static LOWRANK_HD V f(V x) {
        return x / (V(1) + exp(-x));
    }
    template <class V>
    static LOWRANK_HD V df(V x) {
        const LogisticAndSlope<V> s(x);
        return fma(x, s.slope, s.value);
    }
};

/// GELU with the tanh approximation: PyTorch's approximate="tanh", Transformers' gelu_new.
/// 0.5·x·(1 + tanh(u)) is x·sigmoid(2u), which needs no tanh and does not cancel for x < 0; 2u = x·(a + b·x²).
struct GeluTanh {
    static constexpr const char* name = "gelu_tanh";
    static constexpr Saves saves = Saves::input;
    static constexpr double a = 1.5957691216057307117597842397375; // 2·sqrt(2/π)
    static constexpr double b = a * 0.044715;

    template <class V>
    static LOWRANK_HD V f(V x) {
        return x / (V(1) + exp(-x * fma(V(b), x * x, V(a))));
    }
    /// Constant beyond |x| = 64, where it has long reached 0 or 1 and x² would overflow.
    template <class V>
    static LOWRANK_HD V df(V x) {
        const V t = max(min(x, V(64)), V(-64));
        const V square = t * t;
        const LogisticAndSlope<V> s(t * fma(V(b), square, V(a)));
        return fma(t * fma(V(3 * b), square, V(a)), s.slope, s.value);
    }
};

/// Exact GELU: x·Φ(x), with Φ the normal distribution function.
struct GeluErf {
    static constexpr const char* name = "gelu_erf";
    static constexpr Saves saves = Saves::input;
    static constexpr double sqrt_half = 0.70710678118654752440084436210485;
    static constexpr double density = 0.39894228040143267793994605993438; // 1 / sqrt(2π)

    template <class V>
    static LOWRANK_HD V f(V x) {
        return V(0.5) * x * (V(1) + erf(x * V(sqrt_half)));
    }
    template <class V>
    static LOWRANK_HD V df(V x) {
        const V cdf = V(0.5) * (V(1) + erf(x * V(sqrt_half)));
        return fma(x * V(density), exp(V(-0.5) * x * x), cdf);
    }
};

} // namespace lowrank::math
