// Ops along one dimension: gather, index_select, scatter_add, max, min, cumsum, log_sum_exp, stack.
#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <iterator>
#include <limits>

#include "lowrank/autograd/gradient_check.hpp"
#include "lowrank/ops/broadcast.hpp"
#include "lowrank/ops/cast.hpp"
#include "lowrank/ops/cumsum.hpp"
#include "lowrank/ops/elementwise.hpp"
#include "lowrank/ops/extremes.hpp"
#include "lowrank/ops/log_sum_exp.hpp"
#include "lowrank/ops/reduce.hpp"
#include "random_tensor.hpp"
#include "reference.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

using Index = Tensor<std::int32_t>;
using F = Tensor<float>;
constexpr float inf = std::numeric_limits<float>::infinity(), no_number = std::numeric_limits<float>::quiet_NaN();

template <class T>
void compare(double tolerance) {
    for (const auto& c : reference_cases("cumsum")) {
        c.check<T>({"x"}, tolerance, [&](const auto& x) { return cumsum(x[0], int(c.number("dim"))); });
    }
    for (const auto& c : reference_cases("log_sum_exp")) {
        c.check<T>({"x"}, 3 * tolerance, [&](const auto& x) { return log_sum_exp(x[0], int(c.number("dim"))); });
    }
    for (const auto& c : reference_cases("gather")) {
        const auto index = c.tensor<std::int64_t>("index");
        c.check<T>({"x"}, tolerance, [&](const auto& x) { return gather(x[0], int(c.number("dim")), index); });
    }
    for (const auto& c : reference_cases("index_select")) {
        const auto index = c.tensor<std::int32_t>("index");
        c.check<T>({"x"}, tolerance, [&](const auto& x) { return index_select(x[0], int(c.number("dim")), index); });
    }
    for (const auto& c : reference_cases("scatter_add")) {
        const auto index = c.tensor<std::int32_t>("index");
        c.check<T>({"x", "source"}, tolerance,
                   [&](const auto& x) { return scatter_add(x[0], int(c.number("dim")), index, x[1]); });
    }
    for (const auto& c : reference_cases("scatter")) {
        const auto index = c.tensor<std::int64_t>("index");
        c.check<T>({"x", "source"}, tolerance,
                   [&](const auto& x) { return scatter(x[0], int(c.number("dim")), index, x[1]); });
    }
    for (const bool largest : {true, false}) {
        for (const auto& c : reference_cases(largest ? "max" : "min")) {
            const int dim = int(c.number("dim"));
            const auto of = [&](const auto& x) { return largest ? max(x, dim) : min(x, dim); };
            c.check<T>({"x"}, tolerance, [&](const auto& x) { return of(x[0]).values; });
            CHECK(of(c.tensor<T>("x")).indices.to_vector() == c.tensor<std::int32_t>("indices").to_vector());
        }
    }
}

} // namespace

TEST_CASE("ops along one dimension equal PyTorch's") {
    compare<double>(1e-7);
    compare<float>(1e-6);
}

TEST_CASE("max and min: the first of equals, NaN beyond all, kept dimensions, all elements") {
    const F x = F::from({1, 3, 3, -2, no_number, 5, no_number, -inf, inf, 0, 0, 0}, {4, 3});
    CHECK(argmax(x, 1).to_vector() == std::vector{1, 1, 0, 0});
    CHECK(argmin(x, 1).to_vector() == std::vector{0, 1, 0, 0});
    CHECK(argmax(transpose(x), 0).to_vector() == std::vector{1, 1, 0, 0});
    CHECK(max(x, 1, true).values.shape() == Shape{4, 1});
    CHECK(argmin(x, -2, true).shape() == Shape{1, 3});
    CHECK(std::isnan(max(x).item()));
    CHECK(min(slice(x, 0, 0, 1)).item() == 1.0f);
    CHECK(max(F::scalar(4)).item() == 4.0f);
    CHECK(max(F::zeros({0, 3}), 1).values.shape() == Shape{0});
    CHECK(static_cast<float>(max(cast<bf16>(slice(x, 0, 0, 1))).item()) == 3.0f);
    CHECK_THROWS_WITH_AS(max(F::zeros({3, 0}), 1), "max: dimension 1 of [3, 0], expected 1 to 2^31 - 1 elements",
                         ShapeError);
    CHECK_THROWS_WITH_AS(argmin(x, 2), "min: dimension 2 of a tensor with 2 dimensions", ShapeError);
}

TEST_CASE_TEMPLATE("max and min of long lines: the first of equals and of NaN, wherever they are", T, float, double,
                   bf16) {
    for (const Shape& shape :
         {Shape{1, 1}, Shape{3, 63}, Shape{2, 130}, Shape{1, 40'000}, Shape{2, 20'001}, Shape{300, 70}}) {
        for (const bool has_nan : {false, true}) {
            Rng rng(17);
            std::vector<T> values; // few different ones, so that the extremes are met several times
            for (std::int64_t i = 0; i < numel(shape); ++i) {
                values.push_back(static_cast<T>(static_cast<float>(rng.below(300)) - 150));
                if (has_nan && rng.below(static_cast<std::uint64_t>(shape[1])) == 0) {
                    values.back() = static_cast<T>(no_number);
                }
            }
            const auto x = Tensor<T>::from(values, shape);
            for (const int dim : {0, 1}) {
                const std::int64_t lines = shape[1 - dim], step = dim == 0 ? lines : 1, line = dim == 0 ? 1 : shape[1];
                std::vector<std::int32_t> largest, smallest;
                for (std::int64_t l = 0; l < lines; ++l) {
                    std::int64_t high = 0, low = 0;
                    const auto at = [&](std::int64_t j) {
                        return convert<double>(values[std::size_t(l * line + j * step)]);
                    };
                    for (std::int64_t j = 1; j < shape[dim]; ++j) {
                        const auto is_new = [&](std::int64_t best, bool beyond) {
                            return !std::isnan(at(best)) && (std::isnan(at(j)) || beyond);
                        };
                        high = is_new(high, at(j) > at(high)) ? j : high;
                        low = is_new(low, at(j) < at(low)) ? j : low;
                    }
                    largest.push_back(static_cast<std::int32_t>(high));
                    smallest.push_back(static_cast<std::int32_t>(low));
                }
                CAPTURE(shape);
                CAPTURE(dim);
                CHECK(argmax(x, dim).to_vector() == largest);
                CHECK(argmin(x, dim).to_vector() == smallest);
            }
        }
    }
}

TEST_CASE("max and min find an element anywhere in a long line") {
    for (const std::int64_t place : {0, 63, 64, 16'383, 16'384, 32'767, 39'935, 39'999}) {
        std::vector<float> values(40'000, 0.0f);
        values[static_cast<std::size_t>(place)] = 1;
        const F x = F::from(values, {40'000});
        CHECK(argmax(x, 0).item() == place);
        CHECK(argmin(-x, 0).item() == place);
        CHECK(max(x).item() == 1.0f);
    }
}

TEST_CASE("log_sum_exp of infinities, of nothing, and with the dimension kept") {
    const F x = leaf(F::from({-inf, -inf, -inf, 2}, {2, 2}));
    const F y = log_sum_exp(x);
    CHECK(y.to_vector() == std::vector{-inf, 2.0f});
    Gradients gradients;
    backward(sum(y), gradients);
    CHECK(gradients[x].to_vector() == std::vector<float>{0, 0, 0, 1});
    CHECK(log_sum_exp(F::from({1, inf}, {2}), 0).item() == inf);
    CHECK(log_sum_exp(F::zeros({2, 0})).to_vector() == std::vector{-inf, -inf});
    CHECK(log_sum_exp(F::zeros({2, 3, 4}), 1, true).shape() == Shape{2, 1, 4});
    CHECK_THROWS_AS(log_sum_exp(F::scalar(1)), ShapeError);
    // bf16: the sum is kept in float, so that the gradient's weights add up to one.
    Rng rng(1);
    const auto wide = leaf(random_tensor<bf16>({2, 999}, rng));
    Gradients g;
    backward(log_sum_exp(wide), Tensor<bf16>::full({2}, bf16(1.0f)), g);
    double total = 0;
    for (const float value : cast<float>(g[wide]).to_vector()) {
        total += static_cast<double>(value);
    }
    CHECK(total == doctest::Approx(2).epsilon(1e-3));
}

TEST_CASE("indices: types, layouts, repetitions, empties") {
    Rng rng(2);
    const F x = random_tensor<float>({3, 4}, rng);
    const auto wide = Tensor<std::int64_t>::from({2, 0, 2}, {3});
    const F rows = index_select(x, 0, wide);
    CHECK(relative_error(select(rows, 0, 1), select(x, 0, 0)) == 0);
    CHECK(relative_error(select(rows, 0, 2), select(x, 0, 2)) == 0);
    // A broadcast index reads whole rows too.
    CHECK(relative_error(gather(x, 0, broadcast_to(unsqueeze(wide, 1), {3, 4})), rows) == 0);
    CHECK(relative_error(gather(transpose(x), 1, broadcast_to(wide, {4, 3})), transpose(rows)) == 0);
    const Index none = Index::zeros({0});
    CHECK(index_select(x, 1, none).shape() == Shape{3, 0});
    CHECK(index_select(F::zeros({2, 0}), 0, wide.as_strided({1}, {1}, 1)).shape() == Shape{1, 0});
    CHECK(relative_error(scatter_add(x, 0, Index::zeros({0, 4}), F::zeros({0, 4})), x) == 0);
    CHECK(scatter(x, 0, Index::zeros({2, 4}), slice(x, 0, 1)).shape() == x.shape());
    CHECK(scatter(F::zeros({2}), 0, Index::from({1, 1}, {2}), F::from({7, 8}, {2})).to_vector() ==
          std::vector<float>{0, 8});
    // Sums that float would lose, in the forward and in the gradient.
    const auto zero = Index::zeros({3});
    CHECK(scatter_add(F::zeros({1}), 0, zero, F::from({1e8f, 1, -1e8f}, {3})).item() == 1.0f);
    const F one = leaf(F::full({1}, 1));
    Gradients gradients;
    backward(gather(one, 0, zero), F::from({1e8f, 1, -1e8f}, {3}), gradients);
    CHECK(gradients[one].item() == 1.0f);
    CHECK(gather(Tensor<std::int32_t>::from({5, 6, 7}, {3}), 0, wide).to_vector() == std::vector{7, 5, 7});
}

TEST_CASE("cumsum sums in double; empties") {
    CHECK(cumsum(F::from({1e8f, 1, -1e8f}, {3}), 0).to_vector() == std::vector<float>{1e8f, 1e8f, 1});
    CHECK(cumsum(F::zeros({0, 3}), 0).shape() == Shape{0, 3});
    CHECK(cumsum(F::zeros({3, 0}), 0).shape() == Shape{3, 0});
    CHECK_THROWS_AS(cumsum(F::scalar(1), 0), ShapeError);
}

TEST_CASE_TEMPLATE("running sums and scattering over many lines equal plain loops", T, float, double, bf16) {
    Rng rng(3);
    for (const Shape& shape : {Shape{3, 41, 70}, Shape{77, 301}, Shape{1, 5}}) {
        const auto x = leaf(random_tensor<T>(shape, rng)), dy = random_tensor<T>(shape, rng);
        for (int dim = 0; dim < shape.rank(); ++dim) {
            CAPTURE(shape);
            CAPTURE(dim);
            const std::int64_t step = row_major(shape)[dim], n = shape[dim];
            std::vector<T> sums(static_cast<std::size_t>(x.numel())), slopes = sums;
            for (std::int64_t i = 0; i < x.numel(); ++i) {
                double before = 0, behind = 0;
                const std::int64_t j = i / step % n, first = i - j * step;
                for (std::int64_t k = 0; k <= j; ++k) {
                    before += convert<double>(x.data()[first + k * step]);
                }
                for (std::int64_t k = n - 1; k >= j; --k) {
                    behind += convert<double>(dy.data()[first + k * step]);
                }
                sums[std::size_t(i)] = convert<T>(before);
                slopes[std::size_t(i)] = convert<T>(behind);
            }
            Gradients gradients;
            const auto y = cumsum(x, dim);
            backward(y, dy, gradients);
            CHECK(relative_error(y, Tensor<T>::from(sums, shape)) == 0);
            CHECK(relative_error(gradients[x], Tensor<T>::from(slopes, shape)) == 0);
        }
    }
    const std::int64_t outer = 2, n = 50, m = 300, inner = 70;
    const auto x = random_tensor<T>({outer, n, inner}, rng), source = random_tensor<T>({outer, m, inner}, rng);
    std::vector<std::int32_t> index;
    std::vector<double> added;
    for (const T value : x.to_vector()) {
        added.push_back(convert<double>(value));
    }
    std::vector<T> put = x.to_vector();
    for (std::int64_t i = 0; i < source.numel(); ++i) {
        index.push_back(static_cast<std::int32_t>(rng.below(n)));
        const auto target = std::size_t((i / (m * inner) * n + index.back()) * inner + i % inner);
        added[target] += convert<double>(source.data()[i]);
        put[target] = source.data()[i];
    }
    std::vector<T> sums;
    std::transform(added.begin(), added.end(), std::back_inserter(sums), convert<T, double>);
    const Index places = Index::from(index, source.shape());
    CHECK(relative_error(scatter_add(x, 1, places, source), Tensor<T>::from(sums, x.shape())) == 0);
    CHECK(relative_error(scatter(x, 1, places, source), Tensor<T>::from(put, x.shape())) == 0);
}

TEST_CASE("stack joins along a new dimension") {
    const F a = F::from({1, 2}, {2}), b = F::from({3, 4}, {2});
    CHECK(stack<float, Cpu>({a, b}).to_vector() == std::vector<float>{1, 2, 3, 4});
    CHECK(stack<float, Cpu>({a, b}, -1).to_vector() == std::vector<float>{1, 3, 2, 4});
    CHECK_THROWS_WITH_AS((stack<float, Cpu>({a, F::zeros({3})})), "stack: shapes differ: lhs [2], rhs [3]", ShapeError);
    CHECK_THROWS_AS(stack(std::vector<F>{}), ShapeError);
}

TEST_CASE("an index that does not fit is named") {
    const F x = F::zeros({2, 3});
    CHECK_THROWS_WITH_AS(gather(x, 1, Index::from({0, 3}, {2, 1})),
                         "gather: index 3 at position 1, expected 0 or more and below 3", ShapeError);
    CHECK_THROWS_WITH_AS(index_select(x, 0, Index::from({-1}, {1})),
                         "index_select: index -1 at position 0, expected 0 or more and below 2", ShapeError);
    CHECK_THROWS_WITH_AS(gather(x, 1, Index::zeros({3, 1})),
                         "gather: x and index differ beside dimension 1: x [2, 3], index [3, 1]", ShapeError);
    Index many = Index::zeros({100'000});
    many.mutable_data()[90'000] = -7;
    many.mutable_data()[70'001] = 2;
    CHECK_THROWS_WITH_AS(index_select(x, 0, many),
                         "index_select: index 2 at position 70001, expected 0 or more and below 2", ShapeError);
    CHECK_THROWS_AS(gather(x, 1, Index::zeros({2})), ShapeError);
    CHECK_THROWS_AS(index_select(x, 0, Index::zeros({1, 1})), ShapeError);
    CHECK_THROWS_WITH_AS(scatter_add(x, 0, Index::zeros({2, 3}), F::zeros({2, 2})),
                         "scatter_add: shapes of index and source differ: index [2, 3], source [2, 2]", ShapeError);
    CHECK_THROWS_AS(scatter_add(x, 0, Index::from({0, 1, 2}, {1, 3}), F::zeros({1, 3})), ShapeError);
}
