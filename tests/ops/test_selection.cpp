// Powers, comparisons, and what selects: where, maximum, minimum, clamp.
#include <cmath>
#include <doctest/doctest.h>
#include <limits>

#include "lowrank/autograd/backward.hpp"
#include "lowrank/ops/cast.hpp"
#include "lowrank/ops/comparison.hpp"
#include "lowrank/ops/reduce.hpp"
#include "reference.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

using F = Tensor<float>;
using V = std::vector<float>;
constexpr float infinity = std::numeric_limits<float>::infinity();

} // namespace

TEST_CASE("powers, clamp and where equal PyTorch's") {
    for (const auto& c : reference_cases("power")) {
        c.check<float>({"x"}, 1e-6, [&](const auto& x) { return pow(x[0], c.number("exponent")); });
    }
    for (const auto& c : reference_cases("clamp")) {
        c.check<float>({"x"}, 0, [&](const auto& x) { return clamp(x[0], c.number("low"), c.number("high")); });
    }
    for (const auto& c : reference_cases("where")) {
        const F mask = c.tensor<float>("mask");
        c.check<float>({"a", "b"}, 1e-6, [&](const auto& x) { return where(mask, x[0], x[1]); });
    }
}

TEST_CASE("comparisons give 1 and 0, broadcast and add up") {
    const F x = F::from({1, 2, 3, std::nanf(""), -0.0f, infinity}, {2, 3});
    const F b = F::from({2, 0}, {2, 1});
    CHECK(greater(x, b).to_vector() == V{0, 0, 1, 0, 0, 1});
    CHECK(greater_equal(x, b).to_vector() == V{0, 1, 1, 0, 1, 1});
    CHECK(less(x, b).to_vector() == V{1, 0, 0, 0, 0, 0});
    CHECK(less_equal(x, 2).to_vector() == V{1, 1, 0, 0, 1, 0});
    CHECK(equal(transpose(x), 0.0).to_vector() == V{0, 0, 0, 1, 0, 0});
    CHECK(not_equal(x, x).to_vector() == V{0, 0, 0, 1, 0, 0}); // where x is NaN
    CHECK(sum(less(x, 3)).item() == 3.0f);
    CHECK(!greater(leaf(x), b).node());
    CHECK(greater(F::zeros({0, 3}), F::zeros({3})).shape() == Shape{0, 3});
    const auto half = Tensor<bf16>::from({bf16(0.5f), bf16(2.0f)}, {2});
    CHECK(cast<float>(greater(half, 1)).to_vector() == V{0, 1});
    CHECK_THROWS_WITH_AS(less(x, F::zeros({4})), "less: shapes do not broadcast: lhs [2, 3], rhs [4] (3 vs 4)",
                         ShapeError);
}

TEST_CASE("what where does not choose has a gradient of 0, even where its own is not finite") {
    const F x = leaf(F::from({-1, 4, 0}, {3}));
    const F y = where(greater(x, 0), log(x), F::scalar(7));
    CHECK(y.to_vector() == V{7, std::log(4.0f), 7});
    Gradients chosen;
    backward(where(F::from({0, 1, 0}, {3}), x, F::scalar(infinity)), F::from({infinity, 2, infinity}, {3}), chosen);
    CHECK(chosen[x].to_vector() == V{0, 2, 0});
    CHECK(where(F::full({1}, 1), F::zeros({0, 1}), F::zeros({3})).shape() == Shape{0, 3});
    CHECK_THROWS_WITH_AS(where(F::zeros({2}), F::zeros({3}), F::zeros({})),
                         "where: shapes do not broadcast: lhs [2], rhs [3] (2 vs 3)", ShapeError);
}

TEST_CASE("maximum, minimum and clamp at NaN, infinities and equal values") {
    const F a = F::from({std::nanf(""), 1, infinity}, {3}), b = F::from({1, std::nanf(""), 2}, {3});
    CHECK(relative_error(maximum(a, b), F::from({std::nanf(""), std::nanf(""), infinity}, {3})) == 0);
    CHECK(relative_error(minimum(a, b), F::from({std::nanf(""), std::nanf(""), 2}, {3})) == 0);
    CHECK(relative_error(clamp(a, 0, 5), F::from({std::nanf(""), 1, 5}, {3})) == 0);
    CHECK(clamp(slice(a, 0, 1), 3).to_vector() == V{3, infinity});
    CHECK(clamp(F::from({1, 9}, {2}), 5, 2).to_vector() == V{2, 2});
    CHECK_THROWS_AS(maximum(F::zeros({2}), F::zeros({3})), ShapeError);
}

TEST_CASE("powers of negative numbers and of zero") {
    const F x = F::from({-2, 0, 3}, {3});
    CHECK(pow(x, 3).to_vector() == V{-8, 0, 27});
    CHECK(pow(x, 0).to_vector() == V{1, 1, 1});
    CHECK(relative_error(pow(x, 0.5), F::from({std::nanf(""), 0, std::sqrt(3.0f)}, {3})) < 1e-7);
    CHECK(pow(x, F::from({2, 0, -1}, {3})).to_vector() == V{4, 1, 1.0f / 3});
    CHECK(static_cast<float>(pow(Tensor<bf16>::scalar(bf16(3.0f)), 3).item()) == 27.0f);
}

TEST_CASE("the usual exponents give what others give: the power and its derivative within 2 ULP of the C library's") {
    const V values{1e-9f, 0.3f, 0.75f, 1, 1.0000001f, 2.5f, 3, 1e9f, 7.7f};
    const F x = leaf(F::from(values, {9}));
    for (const double exponent : {-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0}) {
        CAPTURE(exponent);
        const F y = pow(x, exponent);
        const V powers = y.to_vector(), slopes = backward(sum(y))[x].to_vector();
        for (std::size_t i = 0; i < values.size(); ++i) {
            const double power = std::pow(double(values[i]), exponent);
            const double slope = exponent * std::pow(double(values[i]), exponent - 1);
            CAPTURE(values[i]);
            CHECK(std::abs(double(powers[i]) - power) <= 0x1p-22 * power);
            CHECK(std::abs(double(slopes[i]) - slope) <= 0x1p-22 * std::abs(slope));
        }
    }
}
