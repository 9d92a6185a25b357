#include <cmath>
#include <doctest/doctest.h>

#include "lowrank/autograd/gradient_check.hpp"
#include "lowrank/ops/reduce.hpp"
#include "reference.hpp"

using namespace lowrank;

namespace {

template <class T>
Tensor<T> random(const Shape& shape, std::uint64_t seed) {
    Rng rng(seed);
    std::vector<T> values;
    for (std::int64_t i = 0; i < numel(shape); ++i) {
        values.push_back(convert<T>(rng.normal()));
    }
    return Tensor<T>::from(values, shape);
}

// The sum of x over the dimensions that `keep` does not name, element by element.
template <class T>
std::vector<double> naive_sum(const Tensor<T>& x, const Extents& dims) {
    Shape kept = x.shape();
    for (const std::int64_t d : dims) {
        kept[static_cast<int>(d)] = 1;
    }
    std::vector<double> sums(static_cast<std::size_t>(numel(kept)), 0.0);
    const Strides to = broadcast_strides(kept, row_major(kept), x.shape()), order = row_major(x.shape());
    for (std::int64_t i = 0; i < x.numel(); ++i) {
        std::int64_t from = 0, target = 0;
        for (int d = 0; d < x.rank(); ++d) {
            const std::int64_t position = i / order[d] % x.shape()[d];
            from += position * x.strides()[d];
            target += position * to[d];
        }
        sums[static_cast<std::size_t>(target)] += static_cast<double>(static_cast<compute_t<T>>(x.data()[from]));
    }
    return sums;
}

template <class T>
void check_sum(const Tensor<T>& x, const Extents& dims, double tolerance) {
    const auto expected = naive_sum(x, dims);
    const auto found = sum(x, dims).to_vector();
    const auto average = mean(x, dims, true).to_vector();
    const double count = static_cast<double>(x.numel()) / static_cast<double>(expected.size());
    REQUIRE(found.size() == expected.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
        const double scale = std::abs(expected[i]) + 1e-3 * std::sqrt(count);
        REQUIRE(std::abs(convert<double>(found[i]) - expected[i]) <= tolerance * scale);
        REQUIRE(std::abs(convert<double>(average[i]) * count - expected[i]) <= tolerance * scale);
    }
}

} // namespace

TEST_CASE_TEMPLATE("sums over any dimensions equal a naive sum", T, float, double, bf16) {
    const double tolerance = std::is_same_v<T, double> ? 1e-12 : std::is_same_v<T, float> ? 2e-7 : 8e-3;
    const Tensor<T> x = random<T>({3, 5, 7, 2}, 1);
    for (int mask = 0; mask < 16; ++mask) {
        Extents dims;
        for (int d = 0; d < 4; ++d) {
            if (mask >> d & 1) {
                dims.push_back(d);
            }
        }
        check_sum(x, dims, tolerance);
        check_sum(permute(x, {2, 0, 3, 1}), dims, tolerance);
        check_sum(slice(transpose(x, 0, 2), 0, 1, 6), dims, tolerance);
        check_sum(broadcast_to(slice(x, 1, 2, 3), {3, 4, 7, 2}), dims, tolerance);
    }
    check_sum(random<T>({1000, 777}, 2), {0}, tolerance);
    check_sum(random<T>({1000, 777}, 3), {1}, tolerance);
    check_sum(random<T>({100003}, 4), {0}, tolerance);
    check_sum(transpose(random<T>({3, 70001}, 5)), {0}, tolerance);
    check_sum(random<T>({300, 2, 9}, 6), {0, 2}, tolerance);
    check_sum(random<T>({3001, 2, 51}, 6), {0, 2}, tolerance); // cut within a run
}

TEST_CASE("long float sums are accurate") {
    const Tensor<float> x = Tensor<float>::full({1 << 22}, 0.1f);
    CHECK(mean(x).item() == 0.1f);
    CHECK(sum(Tensor<float>::from({1e8f, 1.0f, -1e8f}, {3})).item() == 1.0f);
}

TEST_CASE("sums have the same bits for any number of threads") {
    const int before = num_threads();
    const Tensor<float> x = random<float>({700, 301}, 7);
    set_num_threads(1);
    const auto all = sum(x).item();
    const auto rows = sum(x, {1}).to_vector(), columns = sum(x, {0}).to_vector();
    for (int threads : {2, 3, 8}) {
        set_num_threads(threads);
        CHECK(sum(x).item() == all);
        CHECK(sum(x, {1}).to_vector() == rows);
        CHECK(sum(x, {0}).to_vector() == columns);
    }
    set_num_threads(before);
}

TEST_CASE("shapes, empties and wrong dimensions") {
    const Tensor<double> x = random<double>({2, 3, 1}, 8);
    CHECK(sum(x).shape() == Shape{});
    CHECK(sum(x, {-2}).shape() == Shape{2, 1});
    CHECK(sum(x, {1, -1}, true).shape() == Shape{2, 1, 1});
    CHECK(sum(Tensor<double>::scalar(3.0)).item() == 3.0);
    const Tensor<double> none = Tensor<double>::zeros({0, 3});
    CHECK(sum(none).item() == 0.0);
    CHECK(sum(none, {0}).to_vector() == std::vector<double>{0, 0, 0});
    CHECK(sum(none, {1}).shape() == Shape{0});
    CHECK(std::isnan(mean(none).item()));
    CHECK_THROWS_AS(sum(x, {3}), ShapeError);
    CHECK_THROWS_AS(mean(x, {1, -2}), ShapeError);
}

TEST_CASE("gradients of sum and mean") {
    const Tensor<double> x = random<double>({3, 4, 2}, 9);
    const auto check = [&](const auto& f, const Tensor<double>& input) {
        const GradientCheckReport report = gradient_check(f, input);
        CHECK_MESSAGE(report.ok, report.str());
    };
    check([](auto a) { return sum(a); }, x);
    check([](auto a) { return mean(a); }, x);
    check([](auto a) { return sum(a, {1}); }, x);
    check([](auto a) { return mean(a, {0, 2}, true); }, x);
    check([](auto a) { return mean(transpose(a), {0}); }, x);
    check([](auto a) { return sum(a, {0}); }, Tensor<double>::zeros({0, 3}));
}

TEST_CASE("sum and mean equal PyTorch's") {
    using lowrank::testing::reference_cases;
    for (const auto& reference : reference_cases("sum")) {
        const auto list = reference.list("dims");
        const Extents dims{std::span<const std::int64_t>(list)};
        reference.check<float>({"x"}, 1e-6, [&](const auto& x) { return sum(x[0], dims, reference.flag("keepdim")); });
    }
    for (const auto& reference : reference_cases("mean")) {
        const auto list = reference.list("dims");
        const Extents dims{std::span<const std::int64_t>(list)};
        reference.check<float>({"x"}, 1e-6, [&](const auto& x) { return mean(x[0], dims, reference.flag("keepdim")); });
    }
}
