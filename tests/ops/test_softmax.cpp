#include <cmath>
#include <doctest/doctest.h>

#include "lowrank/autograd/gradient_check.hpp"
#include "lowrank/ops/cast.hpp"
#include "lowrank/ops/softmax.hpp"
#include "reference.hpp"

using namespace lowrank;
using lowrank::testing::reference_cases;
using lowrank::testing::relative_error;

namespace {

template <class T>
Tensor<T> random(const Shape& shape, std::uint64_t seed) {
    Rng rng(seed);
    std::vector<T> values(static_cast<std::size_t>(numel(shape)));
    for (T& value : values) {
        value = T(static_cast<float>(3 * rng.normal()));
    }
    return Tensor<T>::from(values, shape);
}

} // namespace

TEST_CASE("softmax and log_softmax equal PyTorch's, with gradients") {
    for (const auto& c : reference_cases("softmax")) {
        c.check<double>({"x"}, 1e-6, [](const auto& x) { return softmax(x[0]); });
        c.check<float>({"x"}, 1e-6, [](const auto& x) { return softmax(x[0]); });
    }
    for (const auto& c : reference_cases("log_softmax")) {
        c.check<double>({"x"}, 1e-6, [](const auto& x) { return log_softmax(x[0]); });
        c.check<float>({"x"}, 1e-6, [](const auto& x) { return log_softmax(x[0]); });
    }
}

TEST_CASE("gradients agree with central differences, over any dimension") {
    for (const int dim : {0, 1, -1}) {
        const auto x = random<double>({3, 5, 17}, 1);
        auto report = gradient_check([dim](const auto& a) { return softmax(a, dim); }, x);
        CHECK_MESSAGE(report.ok, report.str());
        report = gradient_check([dim](const auto& a) { return log_softmax(a, dim); }, x);
        CHECK_MESSAGE(report.ok, report.str());
        report = gradient_check([dim](const auto& a) { return softmax(transpose(a), dim); }, x);
        CHECK_MESSAGE(report.ok, report.str());
    }
}

TEST_CASE("rows of any length sum to one, also where the sum is long") {
    for (const std::int64_t n : {1, 2, 15, 16, 17, 31, 33, 511, 512, 513, 1030, 50257}) {
        CAPTURE(n);
        const auto x = random<float>({2, n}, 2);
        double sum = 0;
        for (const float p : softmax(x).to_vector()) {
            sum += double(p);
        }
        CHECK(sum == doctest::Approx(2.0).epsilon(1e-6));
        CHECK(relative_error(softmax(x), softmax(cast<double>(x))) < 1e-6);
        CHECK(relative_error(log_softmax(x), log_softmax(cast<double>(x))) < 1e-6);
    }
}

TEST_CASE("bf16 rounds once") {
    const auto x = random<bf16>({7, 33}, 3);
    const auto y = cast<double>(softmax(x)).to_vector(), exact = softmax(cast<double>(x)).to_vector();
    for (std::size_t i = 0; i < y.size(); ++i) {
        CHECK(std::abs(y[i] - exact[i]) <= 0x1.01p-8 * exact[i]);
    }
}

TEST_CASE("a NaN poisons its row only") {
    auto x = random<float>({3, 40}, 4);
    x.mutable_data()[40 + 3] = NAN;
    const auto y = softmax(x).to_vector();
    CHECK(std::isfinite(y[39]));
    CHECK(std::isnan(y[40]));
    CHECK(std::isnan(y[79]));
    CHECK(std::isfinite(y[80]));
}

TEST_CASE("empty tensors, and dimensions that do not exist") {
    CHECK(softmax(Tensor<float>::zeros({0, 3})).shape() == Shape{0, 3});
    CHECK(softmax(Tensor<float>::zeros({3, 0})).shape() == Shape{3, 0});
    CHECK(softmax(Tensor<float>::zeros({3, 0}), 0).shape() == Shape{3, 0});
    CHECK_THROWS_WITH_AS(softmax(Tensor<float>::zeros({3, 2}), 2), "softmax: dimension 2 of a tensor with 2 dimensions",
                         ShapeError);
    CHECK_THROWS_AS(log_softmax(Tensor<float>::scalar(1)), ShapeError);
}

TEST_CASE("the same bits for any number of threads") {
    const auto x = leaf(random<float>({50, 1000}, 5));
    const auto dy = random<float>({50, 1000}, 6);
    const auto run = [&](int threads) {
        set_num_threads(threads);
        Gradients g;
        const auto y = softmax(x);
        backward(y, dy, g);
        return std::pair(y.to_vector(), g[x].to_vector());
    };
    const auto one = run(1);
    CHECK(one == run(2));
    CHECK(one == run(3));
}
