#include <cmath>
#include <doctest/doctest.h>
#include <numeric>

#include "lowrank/autograd/gradient_check.hpp"
#include "lowrank/ops/cast.hpp"
#include "lowrank/ops/layer_norm.hpp"
#include "reference.hpp"

using namespace lowrank;
using lowrank::testing::reference_cases;
using lowrank::testing::relative_error;

namespace {

template <class T>
Tensor<T> random(const Shape& shape, std::uint64_t seed, double shift = 0.0) {
    Rng rng(seed);
    std::vector<T> values(static_cast<std::size_t>(numel(shape)));
    for (T& value : values) {
        value = T(static_cast<float>(rng.normal() + shift));
    }
    return Tensor<T>::from(values, shape);
}

} // namespace

TEST_CASE("layer_norm equals PyTorch's, with the gradients of x, weight and bias") {
    for (const auto& c : reference_cases("layer_norm")) {
        const double epsilon = c.number("eps");
        const auto norm = [epsilon](const auto& x) { return layer_norm(x[0], x[1], x[2], epsilon); };
        if (c.name() == "layer_norm.one" || c.name() == "layer_norm.single_column") {
            // A row of one element: y is the bias, and the reference's other gradients are rounding errors.
            const auto x = leaf(c.tensor<float>("x")), w = leaf(c.tensor<float>("weight")),
                       b = leaf(c.tensor<float>("bias"));
            const auto y = norm(std::vector{x, w, b});
            CHECK(relative_error(y, c.tensor<double>("y")) < 1e-7);
            Gradients g;
            backward(y, c.tensor<float>("dy"), g);
            CHECK(relative_error(g[b], c.tensor<double>("dbias")) < 1e-6);
            CHECK(relative_error(g[w], Tensor<float>::zeros({1})) == 0);
            for (const float value : g[x].to_vector()) {
                CHECK(std::abs(value) < 1e-4f); // one rounding, times rstd = 316
            }
            continue;
        }
        c.check<double>({"x", "weight", "bias"}, 1e-6, norm);
        c.check<float>({"x", "weight", "bias"}, 2e-6, norm);
    }
}

TEST_CASE("gradients agree with central differences") {
    for (const Shape& shape : {Shape{4, 7}, Shape{2, 3, 33}, Shape{5}}) {
        const std::int64_t n = shape[shape.rank() - 1];
        const auto norm = [](const auto& x, const auto& w, const auto& b) { return layer_norm(x, w, b, 1e-5); };
        const auto report =
            gradient_check(norm, random<double>(shape, 1, 0.5), random<double>({n}, 2, 1.0), random<double>({n}, 3));
        CHECK_MESSAGE(report.ok, report.str());
    }
    const auto view =
        gradient_check([](const auto& x, const auto& w, const auto& b) { return layer_norm(transpose(x), w, b, 1e-5); },
                       random<double>({7, 3}, 1), random<double>({7}, 2), random<double>({7}, 3));
    CHECK_MESSAGE(view.ok, view.str());
}

TEST_CASE("rows of any length, far from zero") {
    for (const std::int64_t n : {1, 2, 15, 16, 17, 33, 513, 768}) {
        CAPTURE(n);
        const auto x = random<float>({3, n}, 4, 1000.0);
        const auto w = random<float>({n}, 5, 1.0), b = random<float>({n}, 6);
        const auto y = layer_norm(x, w, b, 1e-5);
        CHECK(relative_error(y, layer_norm(cast<double>(x), cast<double>(w), cast<double>(b), 1e-5)) < 2e-6);
    }
}

TEST_CASE("the gradients of weight and bias over many rows, and over long ones, equal plain sums") {
    for (const Shape& shape : {Shape{1000, 77}, Shape{40, 20'001}}) {
        CAPTURE(shape);
        const std::int64_t n = shape[1];
        const auto x = random<float>(shape, 1, 3.0), dy = random<float>(shape, 2);
        const auto w = leaf(random<float>({n}, 3)), b = leaf(random<float>({n}, 4));
        std::vector<double> dw(static_cast<std::size_t>(n)), db = dw;
        for (std::int64_t i = 0; i < shape[0]; ++i) {
            const float *row = x.data() + i * n, *slope = dy.data() + i * n;
            const double count = static_cast<double>(n), mean = std::accumulate(row, row + n, 0.0) / count;
            double variance = 0;
            for (std::int64_t j = 0; j < n; ++j) {
                variance += (double(row[j]) - mean) * (double(row[j]) - mean) / count;
            }
            for (std::int64_t j = 0; j < n; ++j) {
                db[std::size_t(j)] += double(slope[j]);
                dw[std::size_t(j)] += double(slope[j]) * (double(row[j]) - mean) / std::sqrt(variance + 1e-5);
            }
        }
        Gradients g;
        backward(layer_norm(x, w, b, 1e-5), dy, g);
        CHECK(relative_error(g[w], Tensor<double>::from(dw, {n})) < 1e-6);
        CHECK(relative_error(g[b], Tensor<double>::from(db, {n})) < 1e-7);
    }
}

TEST_CASE("bf16: the output and dx round once, the parameters' gradients are float") {
    const auto x = leaf(random<bf16>({6, 48}, 1)), dy = random<bf16>({6, 48}, 2);
    const auto w = leaf(random<float>({48}, 3, 1.0)), b = leaf(random<float>({48}, 4));
    const auto wide = [](const auto& t) { return leaf(cast<double>(t.detach())); };
    const auto xd = wide(x), wd = wide(w), bd = wide(b);
    const auto y = layer_norm(x, w, b, 1e-5);
    const auto yd = layer_norm(xd, wd, bd, 1e-5);
    Gradients g, gd;
    backward(y, dy, g);
    backward(yd, cast<double>(dy), gd);
    const auto rounded = [](const Tensor<bf16>& found, const Tensor<double>& exact) {
        const auto f = cast<double>(found).to_vector(), e = exact.to_vector();
        for (std::size_t i = 0; i < f.size(); ++i) {
            CHECK(std::abs(f[i] - e[i]) <= 0x1.01p-8 * std::abs(e[i]) + 1e-6);
        }
    };
    rounded(y.detach(), yd.detach());
    rounded(g[x], gd[xd]);
    CHECK(relative_error(g[w], gd[wd]) < 1e-6);
    CHECK(relative_error(g[b], gd[bd]) < 1e-6);
}

TEST_CASE("a frozen weight and bias get no gradient") {
    const auto x = leaf(random<float>({4, 8}, 1));
    const auto w = random<float>({8}, 2), b = random<float>({8}, 3);
    Gradients g;
    backward(layer_norm(x, w, b, 1e-5), random<float>({4, 8}, 4), g);
    CHECK(g.size() == 1);
    const auto lw = leaf(w), lb = leaf(b);
    Gradients only;
    backward(layer_norm(x.detach(), lw, lb, 1e-5), random<float>({4, 8}, 4), only);
    CHECK(only.size() == 2);
}

TEST_CASE("empty tensors, and shapes that do not fit") {
    const auto w = Tensor<float>::zeros({5});
    CHECK(layer_norm(Tensor<float>::zeros({0, 5}), w, w, 1e-5).shape() == Shape{0, 5});
    CHECK(
        layer_norm(Tensor<float>::zeros({3, 0}), Tensor<float>::zeros({0}), Tensor<float>::zeros({0}), 1e-5).shape() ==
        Shape{3, 0});
    CHECK_THROWS_AS(layer_norm(Tensor<float>::zeros({3, 4}), w, w, 1e-5), ShapeError);
    CHECK_THROWS_AS(layer_norm(Tensor<float>::zeros({3, 5}), w, Tensor<float>::zeros({4}), 1e-5), ShapeError);
    CHECK_THROWS_AS(layer_norm(Tensor<float>::scalar(1), w, w, 1e-5), ShapeError);
}

TEST_CASE("the same bits for any number of threads") {
    const auto x = leaf(random<float>({300, 200}, 1)), w = leaf(random<float>({200}, 2)),
               b = leaf(random<float>({200}, 3));
    const auto dy = random<float>({300, 200}, 4);
    const auto run = [&](int threads) {
        set_num_threads(threads);
        const auto y = layer_norm(x, w, b, 1e-5);
        Gradients g;
        backward(y, dy, g);
        return std::vector{y.to_vector(), g[x].to_vector(), g[w].to_vector(), g[b].to_vector()};
    };
    const auto one = run(1);
    CHECK(one == run(2));
    CHECK(one == run(3));
}
