#include <cmath>
#include <doctest/doctest.h>

#include "lowrank/autograd/gradient_check.hpp"
#include "lowrank/ops/cast.hpp"
#include "lowrank/ops/dropout.hpp"

using namespace lowrank;

namespace {

template <class T>
Tensor<T> random(const Shape& shape, std::uint64_t seed) {
    Rng rng(seed);
    std::vector<T> values(static_cast<std::size_t>(numel(shape)));
    for (T& value : values) {
        value = T(static_cast<float>(rng.normal()));
    }
    return Tensor<T>::from(values, shape);
}

Tensor<std::int64_t> seed_of(std::int64_t value) {
    return Tensor<std::int64_t>::scalar(value);
}

} // namespace

TEST_CASE("element e is kept exactly when its documented random word says so") {
    for (const std::int64_t n : {1, 63, 64, 65, 511, 513, 40000}) {
        CAPTURE(n);
        for (const std::int64_t seed : {std::int64_t(0), std::int64_t(-7), std::int64_t(1) << 40}) {
            const std::uint32_t site = 0xfedcba98u;
            const double p = 0.3;
            const auto check = [&]<class T>(T one) {
                const auto y = dropout(Tensor<T>::full({n}, one), p, seed_of(seed), site).to_vector();
                for (std::int64_t e = 0; e < n; ++e) {
                    const std::uint32_t word = dropout_word(std::uint64_t(seed), site, std::uint64_t(e));
                    const bool keep = uniform_from(word) >= float(p);
                    REQUIRE(static_cast<compute_t<T>>(y[std::size_t(e)]) ==
                            (keep ? static_cast<compute_t<T>>(T(static_cast<compute_t<T>>(1 / (1 - p)))) : 0));
                }
            };
            check(1.0f);
            check(1.0);
            check(bf16(1.0f));
        }
    }
}

TEST_CASE("a fraction p is dropped, and the mean stays") {
    for (const double p : {0.01, 0.1, 0.5, 0.9}) {
        const std::int64_t n = 200000;
        const auto y = dropout(Tensor<double>::full({n}, 1.0), p, seed_of(3), 1).to_vector();
        double zeros = 0, sum = 0;
        for (const double value : y) {
            zeros += value == 0;
            sum += value;
        }
        const double deviation = std::sqrt(p * (1 - p) / double(n));
        CHECK(std::abs(zeros / double(n) - p) < 4 * deviation);
        CHECK(std::abs(sum / double(n) - 1) < 4 * deviation / (1 - p));
    }
}

TEST_CASE("seed and site change the mask, a different shape does not") {
    const auto x = Tensor<float>::full({1000}, 1.0f);
    const auto y = dropout(x, 0.5, seed_of(1), 1).to_vector();
    CHECK(y != dropout(x, 0.5, seed_of(2), 1).to_vector());
    CHECK(y != dropout(x, 0.5, seed_of(1), 2).to_vector());
    CHECK(y == dropout(Tensor<float>::full({10, 100}, 1.0f), 0.5, seed_of(1), 1).to_vector());
}

TEST_CASE("the gradient has the forward's mask") {
    const auto report =
        gradient_check([](const auto& x) { return dropout(x, 0.4, seed_of(5), 9); }, random<double>({7, 31}, 1));
    CHECK_MESSAGE(report.ok, report.str());
    const auto view = gradient_check([](const auto& x) { return dropout(transpose(x), 0.4, seed_of(5), 9); },
                                     random<double>({7, 31}, 1));
    CHECK_MESSAGE(view.ok, view.str());
}

TEST_CASE("a seed overwritten between forward and backward is noticed") {
    auto seed = seed_of(1);
    const auto x = leaf(random<float>({10}, 1));
    const auto y = dropout(x, 0.5, seed, 1);
    *seed.mutable_data() = 2;
    Gradients g;
    CHECK_THROWS_AS(backward(y, random<float>({10}, 2), g), AutogradError);
}

TEST_CASE("p = 0 returns its input; others are refused outside [0, 1)") {
    const auto x = random<float>({4}, 1);
    CHECK(dropout(x, 0.0, Tensor<std::int64_t>(), 1).data() == x.data());
    CHECK_THROWS_AS(dropout(x, 1.0, seed_of(1), 1), OptionError);
    CHECK_THROWS_AS(dropout(x, -0.1, seed_of(1), 1), OptionError);
    CHECK_THROWS_AS(dropout(x, double(NAN), seed_of(1), 1), OptionError);
    CHECK_THROWS_AS(dropout(x, 0.1, Tensor<std::int64_t>(), 1), ShapeError);
    CHECK(dropout(Tensor<float>::zeros({0, 3}), 0.5, seed_of(1), 1).shape() == Shape{0, 3});
}

TEST_CASE("the same bits for any number of threads") {
    const auto x = random<float>({100003}, 2);
    const auto run = [&](int threads) {
        set_num_threads(threads);
        return dropout(x, 0.2, seed_of(77), 3).to_vector();
    };
    const auto one = run(1);
    CHECK(one == run(2));
    CHECK(one == run(3));
}
