// The row ops of LLaMA-like models: RMS norm and rotary position embedding.
#include <cmath>
#include <doctest/doctest.h>

#include "lowrank/autograd/gradient_check.hpp"
#include "lowrank/ops/cast.hpp"
#include "lowrank/ops/rms_norm.hpp"
#include "lowrank/ops/rotary.hpp"
#include "random_tensor.hpp"
#include "reference.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

using F = Tensor<float>;

Tensor<std::int32_t> positions(const std::vector<std::int32_t>& values, const Shape& shape) {
    return Tensor<std::int32_t>::from(values, shape);
}

} // namespace

TEST_CASE("rms_norm equals LLaMA's, with the gradients of x and weight") {
    for (const auto& c : reference_cases("rms_norm")) {
        const auto norm = [&](const auto& x) { return rms_norm(x[0], x[1], c.number("eps")); };
        const bool cancels = c.tensor<float>("x").numel() > 0 && c.tensor<float>("x").size(-1) == 1;
        c.check<double>({"x", "weight"}, 1e-6, norm);
        c.check<float>({"x", "weight"}, cancels ? 2e-1 : 2e-6, norm); // one element: dx is a difference of equals
    }
}

TEST_CASE("rms_norm of rows of any length, and in bf16 with one rounding") {
    for (const std::int64_t n : {1, 2, 15, 16, 17, 33, 513, 768}) {
        CAPTURE(n);
        Rng rng(4);
        const auto x = random_tensor<float>({3, n}, rng), w = random_tensor<float>({n}, rng);
        CHECK(relative_error(rms_norm(x, w, 1e-6), rms_norm(cast<double>(x), cast<double>(w), 1e-6)) < 1e-6);
    }
    Rng rng(5);
    const auto x = leaf(random_tensor<bf16>({6, 48}, rng));
    const auto dy = random_tensor<bf16>({6, 48}, rng);
    const auto w = leaf(random_tensor<float>({48}, rng));
    const auto exact = leaf(cast<double>(x.detach())), gain = leaf(cast<double>(w.detach()));
    const auto y = rms_norm(x, w, 1e-6);
    const auto reference = rms_norm(exact, gain, 1e-6);
    Gradients g, wide;
    backward(y, dy, g);
    backward(reference, cast<double>(dy), wide);
    const auto rounded = [](const Tensor<bf16>& found, const Tensor<double>& expected) {
        const auto f = cast<double>(found).to_vector(), e = expected.to_vector();
        for (std::size_t i = 0; i < f.size(); ++i) {
            CHECK(std::abs(f[i] - e[i]) <= 0x1.01p-8 * std::abs(e[i]) + 1e-6);
        }
    };
    rounded(y.detach(), reference.detach());
    rounded(g[x], wide[exact]);
    CHECK(relative_error(g[w], wide[gain]) < 1e-6);
}

TEST_CASE("rms_norm: frozen weights, empty tensors, shapes that do not fit") {
    Rng rng(6);
    const auto x = leaf(random_tensor<float>({4, 8}, rng)), w = leaf(random_tensor<float>({8}, rng));
    Gradients only_x, only_w;
    backward(rms_norm(x, w.detach(), 1e-5), random_tensor<float>({4, 8}, rng), only_x);
    backward(rms_norm(x.detach(), w, 1e-5), random_tensor<float>({4, 8}, rng), only_w);
    CHECK(only_x.size() == 1);
    CHECK(only_w.size() == 1);
    CHECK(rms_norm(F::zeros({0, 8}), w, 1e-5).shape() == Shape{0, 8});
    CHECK(rms_norm(F::zeros({3, 0}), F::zeros({0}), 1e-5).shape() == Shape{3, 0});
    CHECK_THROWS_WITH_AS(rms_norm(F::zeros({3, 4}), w, 1e-5),
                         "rms_norm: expected a weight of the input's last extent: input [3, 4], weight [8]",
                         ShapeError);
    CHECK_THROWS_AS(rms_norm(F::scalar(1), w, 1e-5), ShapeError);
}

TEST_CASE("rotary equals Transformers', on packed rows, far positions and parts of a head") {
    for (const auto& c : reference_cases("rotary")) {
        const auto frequencies =
            rotary_frequencies(static_cast<std::int64_t>(c.number("dimensions")), c.number("theta"));
        const auto at = c.tensor<std::int32_t>("positions");
        c.check<double>({"x"}, 1e-6,
                        [&](const auto& x) { return rotary(x[0], rotary_table<double>(at, frequencies)); });
        c.check<float>({"x"}, 1e-6, [&](const auto& x) { return rotary(x[0], rotary_table<float>(at, frequencies)); });
    }
}

TEST_CASE("rotary depends on differences of positions alone, keeps lengths and turns back") {
    Rng rng(7);
    const auto q = random_tensor<double>({1, 3, 1, 32}, rng), k = random_tensor<double>({1, 3, 1, 32}, rng);
    const auto frequencies = rotary_frequencies(32);
    const auto scores = [&](std::int32_t shift) {
        const auto table = rotary_table<double>(positions({4 + shift, 9 + shift, 1 + shift}, {3}), frequencies);
        const auto a = rotary(q, table).to_vector(), b = rotary(k, table).to_vector();
        std::vector<double> products(9, 0.0);
        for (std::size_t i = 0; i < 9; ++i) {
            for (std::size_t j = 0; j < 32; ++j) {
                products[i] += a[i / 3 * 32 + j] * b[i % 3 * 32 + j];
            }
        }
        return Tensor<double>::from(products, {9});
    };
    CHECK(relative_error(scores(20), scores(0)) < 1e-5); // the angles are floats
    CHECK(relative_error(scores(-4), scores(0)) < 1e-5);
    const auto there = rotary_table<double>(positions({5, 6, 7}, {3}), frequencies);
    const auto back = rotary_table<double>(positions({-5, -6, -7}, {3}), frequencies);
    CHECK(relative_error(rotary(rotary(q, there), back), q) < 1e-14);
}

TEST_CASE("rotary reads views in place, in any layout, and in bf16 rounds once") {
    Rng rng(8);
    const auto qkv = random_tensor<float>({2, 5, 3, 4, 6}, rng); // [batch, length, part, heads, head_dim]
    const auto frequencies = rotary_frequencies(6);
    const auto at = positions({0, 1, 2, 0, 1, 3, 4, 5, 6, 7}, {2, 5});
    const auto table = rotary_table<float>(at, frequencies);
    const F k = select(qkv, 2, 1);
    CHECK(relative_error(rotary(k, table), rotary(contiguous(k), table)) == 0);
    const F turned = transpose(contiguous(transpose(k, 1, 3)), 1, 3);
    CHECK(relative_error(rotary(turned, table), rotary(k, table)) == 0);
    const F first = select(table, 0, 0); // one table for all rows of a batch
    CHECK(relative_error(select(rotary(k, first), 0, 1), select(rotary(slice(k, 0, 1), unsqueeze(first, 0)), 0, 0)) ==
          0);
    const auto half = cast<bf16>(k);
    CHECK(relative_error(rotary(half, rotary_table<bf16>(at, frequencies)),
                         cast<bf16>(rotary(cast<float>(half), table))) == 0);
    const auto report =
        gradient_check([&](const auto& x) { return rotary(select(x, 2, 1), rotary_table<double>(at, frequencies)); },
                       cast<double>(qkv));
    CHECK_MESSAGE(report.ok, report.str());
    CHECK(rotary(F::zeros({0, 5, 4, 6}), first).shape() == Shape{0, 5, 4, 6});
}

TEST_CASE("rotary: what does not fit is named") {
    const F x = F::zeros({2, 5, 4, 6}), table = F::zeros({5, 6});
    CHECK_THROWS_WITH_AS(rotary(x, F::zeros({4, 6})),
                         "rotary: expected x [batch, length, heads, head_dim] and a table [batch, length, at most "
                         "head_dim] or [length, …]: x [2, 5, 4, 6], table [4, 6]",
                         ShapeError);
    CHECK_THROWS_AS(rotary(x, F::zeros({5, 8})), ShapeError);
    CHECK_THROWS_AS(rotary(x, F::zeros({5, 3})), ShapeError);
    CHECK_THROWS_AS(rotary(x, F::zeros({1, 5, 6})), ShapeError);
    CHECK_THROWS_AS(rotary(x, F::zeros({6})), ShapeError);
    CHECK_THROWS_AS(rotary(F::zeros({5, 4, 6}), table), ShapeError);
    CHECK_THROWS_AS(rotary_frequencies(5), OptionError);
    CHECK_THROWS_AS(rotary_frequencies(4, 0), OptionError);
    CHECK_THROWS_AS(rotary_table<float>(positions({1}, {1}), F::zeros({2, 2})), ShapeError);
}
