#include <cmath>
#include <cstdlib>
#include <doctest/doctest.h>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "lowrank/math/list.hpp"
#include "lowrank/simd/functions.hpp"
#include "lowrank/simd/pow.hpp"
#include "simd/isas.hpp"

using namespace lowrank;
using namespace lowrank::math;

namespace {

template <class Call>
void for_each_unary(Call call) {
    call(Neg()), call(Exp()), call(Log()), call(Sqrt()), call(Rsqrt()), call(Square()), call(Abs());
    call(Tanh()), call(Sigmoid()), call(Relu()), call(SiLU()), call(GeluTanh()), call(GeluErf());
}

template <class Call>
void for_each_binary(Call call) {
    call(Add()), call(Sub()), call(Mul()), call(Div()), call(Pow()), call(Maximum()), call(Minimum());
}

// One line of the fixture: a formula's arguments, value and derivatives by PyTorch, in double.
struct Reference {
    double a, b, f, da, db;
};

std::vector<Reference> references(const std::string& name) {
    std::ifstream in(LOWRANK_TEST_FIXTURES "/math_pytorch.txt");
    std::vector<Reference> found;
    for (std::string op, number; in >> op;) {
        double values[5];
        for (double& value : values) {
            in >> number;
            value = std::strtod(number.c_str(), nullptr);
        }
        if (op == name) {
            found.push_back({values[0], values[1], values[2], values[3], values[4]});
        }
    }
    REQUIRE(found.size() > 30);
    return found;
}

/// Checks a value of `op` at (a, b), relative to 1 or what is expected, whichever is larger.
void check_close(const char* op, double a, double b, double value, double expected, double tolerance) {
    const bool close = std::isnan(expected) ? std::isnan(value)
                       : std::isinf(expected)
                           ? value == expected
                           : std::fabs(value - expected) <= tolerance * std::fmax(1.0, std::fabs(expected));
    if (!close) {
        FAIL_CHECK(op, " at (", a, ", ", b, ") is ", value, ", not ", expected);
    }
}

template <class Op, class V>
V derivative(V x) {
    return Op::df(Op::saves == Saves::output ? Op::f(x) : x);
}

template <class Op>
struct UnaryKernel {
    template <int Width>
    static LOWRANK_HD void run(const float* x, float* y, float* dx) {
        using V = simd::Vec<float, Width>;
        const V value = Op::f(V(*x));
        *y = value[Width - 1];
        *dx = Op::df(Op::saves == Saves::output ? value : V(*x))[Width - 1];
    }
};

// PyTorch has NaN where inf · 0 enters its derivative; ours is the limit.
template <class Op>
bool improved_at(double x) {
    return std::is_same_v<Op, GeluTanh> && std::isinf(x);
}

} // namespace

TEST_CASE("unary formulas and their derivatives in double are PyTorch's") {
    for_each_unary([]<class Op>(Op) {
        for (const Reference& r : references(Op::name)) {
            check_close(Op::name, r.a, 0, Op::f(r.a), r.f, 1e-14);
            if (!improved_at<Op>(r.a)) {
                check_close(Op::name, r.a, 0, derivative<Op>(r.a), r.da, 1e-14);
            }
        }
    });
}

TEST_CASE("unary formulas on vectors of float, under each instruction set, are PyTorch's") {
    for_each_unary([]<class Op>(Op) {
        const auto expected = references(Op::name);
        for (simd::Isa isa : all_isas()) {
            CAPTURE(simd::name_of(isa));
            for (const Reference& r : expected) {
                const auto x = static_cast<float>(r.a);
                float y = 0, dx = 0;
                simd::run_on_isa<UnaryKernel<Op>>(isa, &x, &y, &dx);
                check_close(Op::name, x, 0, y, static_cast<float>(r.f), 1e-6);
                if (!improved_at<Op>(x)) {
                    check_close(Op::name, x, 0, dx, static_cast<float>(r.da), 1e-6);
                }
            }
        }
    });
}

TEST_CASE("binary formulas and their derivatives are PyTorch's") {
    for_each_binary([]<class Op>(Op) {
        for (const Reference& r : references(Op::name)) {
            check_close(Op::name, r.a, r.b, Op::f(r.a, r.b), r.f, 1e-14);
            check_close(Op::name, r.a, r.b, Op::da(r.a, r.b), r.da, 1e-14);
            check_close(Op::name, r.a, r.b, Op::db(r.a, r.b), r.db, 1e-14);
        }
    });
}

TEST_CASE("comparisons are PyTorch's") {
    for_each(ComparisonOps{}, []<class Op>(std::type_identity<Op>) {
        for (const Reference& r : references(Op::name)) {
            check_close(Op::name, r.a, r.b, Op::f(r.a, r.b), r.f, 0);
        }
    });
}

TEST_CASE("derivatives are those of the values: central differences in double") {
    constexpr double h = 1e-6;
    for_each_unary([]<class Op>(Op) {
        for (double x = -6.03; x < 6; x += 0.17) {
            if (std::isnan(Op::f(x - h))) {
                continue; // outside the function's domain
            }
            check_close(Op::name, x, 0, derivative<Op>(x), (Op::f(x + h) - Op::f(x - h)) / (2 * h), 1e-8);
        }
    });
    for_each_binary([]<class Op>(Op) {
        for (double a = -2.03; a < 2; a += 0.31) {
            for (double b = -2.07; b < 2; b += 0.37) {
                check_close(Op::name, a, b, Op::da(a, b), (Op::f(a + h, b) - Op::f(a - h, b)) / (2 * h), 1e-7);
                check_close(Op::name, a, b, Op::db(a, b), (Op::f(a, b + h) - Op::f(a, b - h)) / (2 * h), 1e-7);
            }
        }
    });
}

TEST_CASE("a derivative reads only the arguments that it says it reads") {
    constexpr double nan = std::numeric_limits<double>::quiet_NaN();
    for_each_binary([]<class Op>(Op) {
        CAPTURE(std::string(Op::name));
        const Reads da = Op::da_reads, db = Op::db_reads;
        CHECK(Op::da(da.a ? 2.0 : nan, da.b ? 3.0 : nan) == Op::da(2.0, 3.0));
        CHECK(Op::db(db.a ? 2.0 : nan, db.b ? 3.0 : nan) == Op::db(2.0, 3.0));
    });
    CHECK(Neg::df(nan) == -1.0);
}

TEST_CASE("large arguments stay finite") {
    for (float x : {1e4f, 1e10f, 1e30f, 3e38f}) {
        CHECK(GeluTanh::f(x) == x);
        CHECK(GeluErf::f(x) == x);
        CHECK(SiLU::f(x) == x);
        CHECK(GeluTanh::f(-x) == 0.0f);
        CHECK(GeluErf::f(-x) == 0.0f);
        CHECK(SiLU::f(-x) == 0.0f);
        CHECK(GeluTanh::df(x) == 1.0f);
        CHECK(GeluTanh::df(-x) == 0.0f);
        CHECK(GeluErf::df(x) == 1.0f);
        CHECK(SiLU::df(x) == 1.0f);
        CHECK(SiLU::df(-x) == 0.0f);
        CHECK(Sigmoid::f(x) == 1.0f);
        CHECK(Sigmoid::f(-x) == 0.0f);
        CHECK(Tanh::f(-x) == -1.0f);
    }
    constexpr float inf = std::numeric_limits<float>::infinity();
    CHECK(GeluTanh::df(inf) == 1.0f);
    CHECK(GeluTanh::df(-inf) == 0.0f);
}
