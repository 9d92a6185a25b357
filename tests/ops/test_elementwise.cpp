// What holds for elementwise ops whatever the formula: layouts, types, threads, empties.
#include <doctest/doctest.h>

#include "lowrank/core/random.hpp"
#include "lowrank/ops/cast.hpp"
#include "lowrank/ops/elementwise.hpp"
#include "reference.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

Tensor<float> random(const Shape& shape, std::uint64_t seed) {
    Rng rng(seed);
    std::vector<float> values;
    for (std::int64_t i = 0; i < numel(shape); ++i) {
        values.push_back(static_cast<float>(rng.normal()));
    }
    return Tensor<float>::from(values, shape);
}

template <class T>
std::vector<T> values(const Tensor<T>& x) {
    return contiguous(x).to_vector();
}

} // namespace

TEST_CASE("every layout gives the same bits") {
    for (const Shape& shape : {Shape{3, 5, 7}, Shape{40, 1, 1300}, Shape{1030, 2}}) {
        const auto x = random(shape, 1);
        const auto other = random({shape[shape.rank() - 1]}, 2);
        const auto expected = values(sigmoid(x) * other);
        const auto turned = contiguous(transpose(x, 0, -1));
        CHECK(values(sigmoid(transpose(turned, 0, -1)) * other) == expected);
        CHECK(values(transpose(sigmoid(turned), 0, -1) * other) == expected);
        CHECK(values(sigmoid(x) * contiguous(broadcast_to(other, shape))) == expected);
        const auto wide = concat({x, x}, -1);
        CHECK(values(sigmoid(slice(wide, -1, shape[shape.rank() - 1])) * other) == expected);
    }
}

TEST_CASE("any number of threads gives the same bits") {
    const int before = num_threads();
    const auto run = [](int threads) {
        set_num_threads(threads);
        const auto x = leaf(random({37, 1111}, 3)), b = leaf(random({1111}, 4));
        const auto y = gelu(x * b + x, GeluKind::tanh);
        Gradients gradients;
        backward(y, random({37, 1111}, 5), gradients);
        return std::vector{values(y), values(gradients[x]), values(gradients[b])};
    };
    const auto one = run(1);
    CHECK(run(2) == one);
    CHECK(run(5) == one);
    set_num_threads(before);
}

TEST_CASE("bf16 computes in float and rounds once") {
    const auto x = cast<bf16>(random({5, 33}, 6)), b = cast<bf16>(random({33}, 7));
    const auto expected = cast<bf16>(silu(cast<float>(x)));
    CHECK(values(cast<float>(silu(x))) == values(cast<float>(expected)));
    CHECK(values(cast<float>(x / b)) == values(cast<float>(cast<bf16>(cast<float>(x) / cast<float>(b)))));
    for (const ReferenceCase& reference : reference_cases("gelu_tanh")) {
        reference.check<bf16>({"x"}, 2e-2, [](const auto& v) { return gelu(v[0], GeluKind::tanh); });
    }
}

TEST_CASE("empty tensors and scalars") {
    CHECK(exp(Tensor<float>::zeros({0, 3})).shape() == Shape{0, 3});
    CHECK((Tensor<float>::zeros({0, 3}) + Tensor<float>::zeros({3})).shape() == Shape{0, 3});
    CHECK((Tensor<float>::zeros({2, 1}) * Tensor<float>::zeros({2, 0})).shape() == Shape{2, 0});
    CHECK(exp(Tensor<double>::scalar(0.0)).item() == 1.0);
}
