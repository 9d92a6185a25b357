#include <doctest/doctest.h>

#include "lowrank/autograd/gradient_check.hpp"
#include "lowrank/ops/cast.hpp"
#include "lowrank/ops/reduce.hpp"
#include "lowrank/ops/views.hpp"

using namespace lowrank;

namespace {

using X = Tensor<double>;

X iota(const Shape& shape) {
    std::vector<double> values(static_cast<std::size_t>(numel(shape)));
    for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = static_cast<double>(i);
    }
    return X::from(values, shape);
}

std::vector<double> values(const X& x) {
    return contiguous(x).to_vector();
}

template <class Function, class... Inputs>
void check(const Function& f, const Inputs&... inputs) {
    const GradientCheckReport report = gradient_check(f, inputs...);
    CHECK_MESSAGE(report.ok, report.str());
}

} // namespace

TEST_CASE("reshape keeps the order, infers -1 and shares memory") {
    const X x = iota({2, 3, 4});
    const X y = reshape(x, {4, -1});
    CHECK(y.shape() == Shape{4, 6});
    CHECK(y.data() == x.data());
    CHECK(values(y) == values(x));
    CHECK(reshape(X::zeros({0, 3}), {-1, 3}).shape() == Shape{0, 3});
    CHECK(flatten(x).shape() == Shape{24});
    CHECK(flatten(x, 1).shape() == Shape{2, 12});
    CHECK(flatten(x, 0, 1).shape() == Shape{6, 4});
    CHECK(flatten(X::scalar(2.0)).shape() == Shape{1});
    CHECK_THROWS_AS(reshape(x, {5, -1}), ShapeError);
    CHECK_THROWS_AS(reshape(x, {-1, -1}), ShapeError);
    CHECK_THROWS_AS(reshape(x, {-2, -12}), ShapeError);
    CHECK_THROWS_AS(reshape(X::zeros({0}), {0, -1}), ShapeError);
    CHECK_THROWS_AS(reshape(x, {std::int64_t(1) << 62, 8, -1}), ShapeError);
}

TEST_CASE("permute and transpose move elements; twice is the identity") {
    const X x = iota({2, 3, 4});
    const X y = permute(x, {2, 0, 1});
    CHECK(y.shape() == Shape{4, 2, 3});
    const auto v = values(y);
    for (std::size_t i = 0; i < 4; ++i) {
        for (std::size_t j = 0; j < 2; ++j) {
            for (std::size_t k = 0; k < 3; ++k) {
                CHECK(v[(i * 2 + j) * 3 + k] == static_cast<double>((j * 3 + k) * 4 + i));
            }
        }
    }
    CHECK(values(permute(y, {1, 2, 0})) == values(x));
    CHECK(values(transpose(transpose(x, 0, 2), 0, -1)) == values(x));
    CHECK(values(reshape(transpose(iota({2, 2})), {4})) == std::vector<double>{0, 2, 1, 3});
    CHECK_THROWS_AS(permute(x, {0, 1}), ShapeError);
    CHECK_THROWS_AS(permute(x, {0, 1, 1}), ShapeError);
    CHECK_THROWS_AS(transpose(x, 0, 3), ShapeError);
}

TEST_CASE("copies of permuted tensors, large enough to go by tiles") {
    const X x = iota({19, 8, 33});
    for (const Extents& dims :
         {Extents{0, 2, 1}, Extents{1, 0, 2}, Extents{1, 2, 0}, Extents{2, 0, 1}, Extents{2, 1, 0}}) {
        const X y = permute(x, dims);
        const auto v = values(y);
        std::size_t at = 0;
        for (std::int64_t i = 0; i < y.size(0); ++i) {
            for (std::int64_t j = 0; j < y.size(1); ++j) {
                for (std::int64_t k = 0; k < y.size(2); ++k) {
                    const Strides& s = y.strides();
                    REQUIRE(v[at++] == static_cast<double>(i * s[0] + j * s[1] + k * s[2]));
                }
            }
        }
    }
}

TEST_CASE("slice, select, squeeze and unsqueeze are views") {
    const X x = iota({3, 4});
    CHECK(values(slice(x, 1, 1, 3)) == std::vector<double>{1, 2, 5, 6, 9, 10});
    CHECK(values(slice(x, 0, 2)) == std::vector<double>{8, 9, 10, 11});
    CHECK(slice(x, 0, 3, 3).shape() == Shape{0, 4});
    CHECK(values(select(x, -1, 2)) == std::vector<double>{2, 6, 10});
    CHECK(select(x, 0, 1).data() == x.data() + 4);
    CHECK(unsqueeze(x, 1).shape() == Shape{3, 1, 4});
    CHECK(unsqueeze(x, -1).shape() == Shape{3, 4, 1});
    CHECK(squeeze(unsqueeze(x, 0), 0).shape() == x.shape());
    CHECK_THROWS_AS(slice(x, 0, 2, 1), ShapeError);
    CHECK_THROWS_AS(slice(x, 0, 0, 4), ShapeError);
    CHECK_THROWS_AS(select(x, 0, 3), ShapeError);
    CHECK_THROWS_AS(squeeze(x, 0), ShapeError);
}

TEST_CASE("concat joins what split takes apart") {
    const X x = iota({3, 5, 2});
    for (int dim = 0; dim < 3; ++dim) {
        const std::int64_t extent = x.size(dim);
        const auto parts = split(x, {1, 0, extent - 1}, dim);
        CHECK(values(concat(parts, dim)) == values(x));
        CHECK(values(concat({parts[0], parts[2]}, dim)) == values(x));
    }
    CHECK_THROWS_AS(split(x, {1, 1}, 1), ShapeError);
    CHECK_THROWS_AS(concat({x, iota({3, 4, 2})}, 0), ShapeError);
    CHECK_THROWS_AS(concat({x, iota({3, 5})}, 2), ShapeError);
    CHECK_THROWS_AS(concat(std::vector<X>{}, 0), ShapeError);
}

TEST_CASE("broadcast_to repeats and sum_to adds up") {
    const X x = iota({2, 1});
    CHECK(values(broadcast_to(x, {3, 2, 2})) == std::vector<double>{0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1});
    CHECK(values(sum_to(broadcast_to(x, {3, 2, 2}), {2, 1})) == std::vector<double>{0, 6});
    CHECK(values(sum_to(X::zeros({0, 2}), {2})) == std::vector<double>{0, 0});
    CHECK(broadcast_to(x, {2, 0}).shape() == Shape{2, 0});
    CHECK_THROWS_AS(broadcast_to(iota({2, 3}), {2, 1}), ShapeError);
    CHECK_THROWS_AS(broadcast_to(iota({2, 3}), {3}), ShapeError);
    CHECK_THROWS_AS(sum_to(iota({3}), {2, 3}), ShapeError);
}

TEST_CASE("cast rounds and keeps the layout's order") {
    const Tensor<float> x = Tensor<float>::from({1.0f, 1.00390625f, -3.0f, 1e30f}, {2, 2});
    const Tensor<bf16> y = cast<bf16>(transpose(x));
    CHECK(cast<float>(y).to_vector() == std::vector<float>{1.0f, -3.0f, 1.0f, float(bf16(1e30f))});
    CHECK(cast<float>(x).data() == x.data());
}

TEST_CASE("gradients of layout ops") {
    const X x = iota({2, 3, 4}), matrix = iota({3, 2});
    check([](auto a) { return reshape(a, {6, 4}); }, x);
    check([](auto a) { return reshape(transpose(a, 0, 1), {2, -1}); }, x);
    check([](auto a) { return flatten(permute(a, {2, 0, 1}), 1); }, x);
    check([](auto a) { return slice(slice(a, 1, 1, 3), 2, 0, 2); }, x);
    check([](auto a) { return slice(transpose(a), 1, 2, 2); }, x);
    check([](auto a) { return select(transpose(a), 0, 1); }, x);
    check([](auto a) { return squeeze(unsqueeze(a, 1), 1); }, x);
    check([](auto a) { return contiguous(transpose(a)); }, matrix);
    check([](auto a, auto b) { return concat({a, transpose(b), a}, 1); }, matrix, iota({4, 3}));
    check([](auto a) { return concat(split(a, {3, 1}, 2), 2); }, x);
    check([](auto a) { return broadcast_to(a, {2, 3, 4}); }, iota({3, 1}));
    check([](auto a) { return sum_to(a, {3, 1}); }, x);
    check([](auto a) { return cast<double>(contiguous(a)); }, x);
}
