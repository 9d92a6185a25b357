#include <doctest/doctest.h>

#include "lowrank/autograd/gradient_check.hpp"
#include "lowrank/ops/cast.hpp"
#include "lowrank/ops/embedding.hpp"
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
        value = T(static_cast<float>(rng.normal()));
    }
    return Tensor<T>::from(values, shape);
}

template <class C>
WeightSlot<C, Cpu> slot(const Tensor<C>& table) {
    return {table, Orientation::out_in};
}

} // namespace

TEST_CASE("embedding equals PyTorch's, repeated ids included") {
    for (const auto& c : reference_cases("embedding")) {
        const auto ids = cast<std::int32_t>(c.tensor<double>("ids"));
        c.check<double>({"weight"}, 1e-7, [&](const auto& x) { return embedding<double>(ids, slot(x[0])); });
        c.check<float>({"weight"}, 1e-6, [&](const auto& x) { return embedding<float>(ids, slot(x[0])); });
    }
}

TEST_CASE("gradients agree with central differences") {
    const auto ids = Tensor<std::int32_t>::from({3, 0, 3, 3, 1, 0}, {2, 3});
    const auto report = gradient_check([&](const auto& table) { return embedding<double>(ids, slot(table)); },
                                       random<double>({5, 4}, 1));
    CHECK_MESSAGE(report.ok, report.str());
}

TEST_CASE("many repetitions of an id sum accurately") {
    const std::int64_t count = 20000, width = 3;
    const auto ids = Tensor<std::int32_t>::zeros({count});
    const auto table = leaf(Tensor<float>::zeros({2, width}));
    Gradients g;
    backward(embedding<float>(ids, slot(table)), Tensor<float>::full({count, width}, 0.1f), g);
    for (int i = 0; i < 3; ++i) {
        CHECK(double(g[table].data()[i]) == doctest::Approx(double(0.1f) * count).epsilon(1e-7));
        CHECK(g[table].data()[3 + i] == 0.0f);
    }
}

TEST_CASE("a frozen table of any storage and orientation is read into T") {
    const auto values = random<bf16>({6, 40}, 2);
    const auto ids = Tensor<std::int32_t>::from({5, 0, 5}, {3, 1});
    const auto expected = embedding<double>(ids, slot(cast<double>(values)));
    const auto check = [&](const std::shared_ptr<const Weight<Cpu>>& weight) {
        const auto y = embedding<float>(ids, WeightSlot<float, Cpu>(weight));
        CHECK(y.shape() == Shape{3, 1, 40});
        CHECK(y.node() == nullptr);
        CHECK(relative_error(y, expected) == 0);
        CHECK(relative_error(embedding<bf16>(ids, WeightSlot<float, Cpu>(weight)), expected) == 0);
    };
    check(std::make_shared<DenseWeight<bf16, Cpu>>(values, Orientation::out_in));
    check(std::make_shared<DenseWeight<float, Cpu>>(cast<float>(values), Orientation::out_in));
}

TEST_CASE("bf16 activations from a float table: rounded, and the gradient is float") {
    const auto ids = Tensor<std::int32_t>::from({1, 1}, {2});
    const auto table = leaf(random<float>({2, 5}, 3));
    const auto y = embedding<bf16>(ids, slot(table));
    CHECK(y.to_vector()[0].bits == bf16(table.data()[5]).bits);
    Gradients g;
    const auto dy = random<bf16>({2, 5}, 4);
    backward(y, dy, g);
    CHECK(g[table].data()[5] == static_cast<float>(dy.data()[0]) + static_cast<float>(dy.data()[5]));
}

TEST_CASE("no ids, and ids that are no row") {
    const auto table = Tensor<float>::zeros({4, 3});
    CHECK(embedding<float>(Tensor<std::int32_t>::zeros({0, 2}), slot(table)).shape() == Shape{0, 2, 3});
    CHECK_THROWS_WITH_AS(embedding<float>(Tensor<std::int32_t>::from({0, 4}, {2}), slot(table)),
                         "embedding: id 4 at position 1, expected 0 to 3", ShapeError);
    CHECK_THROWS_AS(embedding<float>(Tensor<std::int32_t>::from({-1}, {1}), slot(table)), ShapeError);
}

TEST_CASE("the same bits for any number of threads") {
    std::vector<std::int32_t> ids;
    for (int i = 0; i < 5000; ++i) {
        ids.push_back(i * 7919 % 13);
    }
    const auto index = Tensor<std::int32_t>::from(ids, {5000});
    const auto table = leaf(random<float>({13, 70}, 5));
    const auto dy = random<float>({5000, 70}, 6);
    const auto run = [&](int threads) {
        set_num_threads(threads);
        Gradients g;
        backward(embedding<float>(index, slot(table)), dy, g);
        return g[table].to_vector();
    };
    const auto one = run(1);
    CHECK(one == run(2));
    CHECK(one == run(3));
}
