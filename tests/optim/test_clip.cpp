#include <cmath>
#include <doctest/doctest.h>
#include <limits>

#include "lowrank/autograd/record.hpp"
#include "lowrank/optim/clip.hpp"

using namespace lowrank;

TEST_CASE("the norm is that of all gradients as one vector, accumulated in double") {
    // 3,000,001 gradients of 1/3 in fp32: a sum in fp32 would be off by far more than 1e-12.
    const std::int64_t n = 3'000'001;
    const float third = 1.0f / 3;
    const std::vector<Tensor<float>> parameters{leaf(Tensor<float>::zeros({n})), leaf(Tensor<float>::zeros({2, 2})),
                                                leaf(Tensor<float>::zeros({0}))};
    Gradients gradients;
    gradients.add(parameters[0].node(), Tensor<float>::full({n}, third));
    gradients.add(parameters[2].node(), Tensor<float>::zeros({0}));
    const double expected = static_cast<double>(third) * std::sqrt(static_cast<double>(n));
    const GradientNorm without = gradient_norm(parameters, gradients); // the second has none
    CHECK(std::abs(without.value / expected - 1) < 1e-12);
    gradients.add(parameters[1].node(), Tensor<float>::full({2, 2}, 1e4f));
    CHECK(std::abs(gradient_norm(parameters, gradients).value / std::hypot(expected, 2e4) - 1) < 1e-12);
    CHECK(gradient_norm(std::vector<Tensor<float>>{}, gradients).value == 0);
}

TEST_CASE("squares that overflow fp32 do not make a norm infinite") {
    const std::vector<Tensor<float>> parameters{leaf(Tensor<float>::zeros({2}))};
    Gradients gradients;
    gradients.add(parameters[0].node(), Tensor<float>::full({2}, 3e38f));
    const GradientNorm norm = gradient_norm(parameters, gradients);
    CHECK_FALSE(norm.first_nonfinite.has_value());
    CHECK(std::abs(norm.value / (static_cast<double>(3e38f) * std::sqrt(2.0)) - 1) < 1e-12);
}

TEST_CASE("the clip factor is torch's") {
    CHECK(GradientNorm{0.5, {}}.clip_factor(1) == 1);
    CHECK(GradientNorm{4, {}}.clip_factor(1) == 1 / (4 + 1e-6));
    CHECK(GradientNorm{1, {}}.clip_factor(1) == 1 / (1 + 1e-6));
    CHECK(GradientNorm{1e9, {}}.clip_factor(0) == 1);
    CHECK(GradientNorm{0, {}}.clip_factor(1) == 1);
    CHECK_THROWS_AS((GradientNorm{1, {}}.clip_factor(-1)), OptionError);
    CHECK_THROWS_AS((GradientNorm{std::nan(""), {}}.clip_factor(1)), NumericError);
}

TEST_CASE_TEMPLATE("the first parameter with a gradient that is not finite is found", A, float, double) {
    const std::int64_t n = 20'011;
    std::vector<Tensor<A>> parameters;
    for (int i = 0; i < 4; ++i) {
        parameters.push_back(leaf(Tensor<A>::zeros({n})));
    }
    for (const A bad : {std::numeric_limits<A>::infinity(), -std::numeric_limits<A>::infinity(),
                        std::numeric_limits<A>::quiet_NaN()}) {
        for (const std::int64_t place : {std::int64_t(0), std::int64_t(16'385), n - 1}) {
            Gradients gradients;
            for (std::size_t i = 0; i < 4; ++i) {
                Tensor<A> gradient = Tensor<A>::full({n}, A(1));
                if (i >= 2) {
                    gradient.mutable_data()[place] = bad;
                }
                gradients.add(parameters[i].node(), gradient);
            }
            const GradientNorm norm = gradient_norm(parameters, gradients);
            REQUIRE(norm.first_nonfinite.has_value());
            CHECK(*norm.first_nonfinite == 2);
            CHECK_FALSE(std::isfinite(norm.value));
        }
    }
}
