// Two ways to add an op with a gradient of one's own.
#include <cmath>
#include <doctest/doctest.h>

#include "lowrank/autograd/gradient_check.hpp"
#include "lowrank/ops/elementwise.hpp"
#include "lowrank/ops/reduce.hpp"

using namespace lowrank;

namespace {

// 1. A formula: softplus(βx)/β = log(1 + e^βx)/β with a member, for every type, vectorized.
struct Softplus {
    static constexpr const char* name = "softplus";
    static constexpr math::Saves saves = math::Saves::input;
    double beta;
    template <class V>
    LOWRANK_HD V f(V x) const {
        using math::exp, math::log;
        return log(V(1) + exp(x * V(beta))) / V(beta);
    }
    template <class V>
    LOWRANK_HD V df(V x) const {
        using math::exp;
        return V(1) / (V(1) + exp(x * V(-beta)));
    }
};

// A formula of two arguments: the hypotenuse, whose derivatives read both.
struct Hypotenuse {
    static constexpr const char* name = "hypotenuse";
    static constexpr math::Reads da_reads{true, true}, db_reads{true, true};
    template <class V>
    LOWRANK_HD static V f(V a, V b) {
        using math::sqrt;
        return sqrt(a * a + b * b);
    }
    template <class V>
    LOWRANK_HD static V da(V a, V b) {
        return a / f(a, b);
    }
    template <class V>
    LOWRANK_HD static V db(V a, V b) {
        return b / f(a, b);
    }
};

// 2. A value and a rule: the outer product of two vectors, made of other ops.
template <class T, DeviceTag D>
Tensor<T, D> outer(const Tensor<T, D>& a, const Tensor<T, D>& b) {
    const Tensor<T, D> column = unsqueeze(a.detach(), 1), row = unsqueeze(b.detach(), 0);
    const auto rule = [column = save(column), row = save(row)](const Tensor<T, D>& dy) {
        return std::tuple(sum(dy * row.get(), {1}), sum(dy * column.get(), {0}));
    };
    return custom_op(column * row, rule, a, b);
}

using X = Tensor<double>;
const X a = X::from({0.5, -1.0, 2.0}, {3}), b = X::from({1.5, 0.25, -0.75}, {3});

} // namespace

TEST_CASE("a formula of one's own") {
    const auto report = gradient_check([](const X& x) { return unary(Softplus{2.0}, x); }, a);
    CHECK_MESSAGE(report.ok, Softplus::name, ": ", report.str());
    const auto hypotenuse = gradient_check([](const X& x, const X& y) { return binary(Hypotenuse{}, x, y); }, a, b);
    CHECK_MESSAGE(hypotenuse.ok, hypotenuse.str());
    const auto y = unary(Softplus{1.0}, Tensor<float>::full({21}, 1.0f)).to_vector();
    for (const float value : y) {
        CHECK(value == doctest::Approx(std::log1p(std::exp(1.0))));
    }
    CHECK(static_cast<float>(unary(Softplus{1.0}, Tensor<bf16>::scalar(bf16(1.0f))).item()) ==
          doctest::Approx(1.3125).epsilon(0.01));
}

TEST_CASE("a value and a rule of one's own") {
    const auto report = gradient_check([](const X& x, const X& y) { return outer(x, y); }, a, b);
    CHECK_MESSAGE(report.ok, report.str());
    const X x = leaf(a); // the other input wants no gradient
    CHECK(backward(sum(outer(x, b)))[x].to_vector() == std::vector<double>(3, 1.0));
    CHECK_FALSE(outer(a, b).node());
}

TEST_CASE("gradient_check names what is wrong") {
    const auto wrong = [](const X& x, const X& y) {
        return custom_op(
            x * y, [s = save(x), t = save(y)](const X& dy) { return std::tuple(dy * t.get(), dy * s.get() * 1.001); },
            x, y);
    };
    const GradientCheckReport report = gradient_check(wrong, a, b);
    CHECK_FALSE(report.ok);
    CHECK(report.input == 1);
    CHECK(report.index == 2);
    CHECK(report.str().find("input 1, element 2: backward gives") == 0);
    CHECK_FALSE(gradient_check([](const X& x) { return unary(Softplus{2.0}, x.detach()) + x * 0.0; }, a).ok);
    CHECK_FALSE(gradient_check(
                    [](const X& x) {
                        return custom_op(
                            x, [](const X& dy) { return dy / 0.0; }, x);
                    },
                    a)
                    .ok);
}
