#include <doctest/doctest.h>
#include <memory>
#include <vector>

#include "lowrank/tensor/tensor.hpp"

using namespace lowrank;

TEST_CASE("making tensors") {
    CHECK_FALSE(Tensor<float>().defined());
    const auto x = Tensor<float>::from({1, 2, 3, 4, 5, 6}, {2, 3});
    CHECK(x.defined());
    CHECK(x.rank() == 2);
    CHECK(x.numel() == 6);
    CHECK(x.size(-1) == 3);
    CHECK(x.strides() == Strides{3, 1});
    CHECK(x.to_vector() == std::vector<float>{1, 2, 3, 4, 5, 6});
    CHECK(Tensor<double>::zeros({2}).to_vector() == std::vector<double>{0, 0});
    CHECK(Tensor<std::int64_t>::full({3}, 7).to_vector() == std::vector<std::int64_t>{7, 7, 7});
    CHECK(Tensor<bf16>::scalar(bf16(2.0f)).item().bits == bf16(2.0f).bits);
    CHECK(Tensor<float>::empty({0, 4}).numel() == 0);
    CHECK_THROWS_AS(Tensor<float>::from({1, 2}, {3}), ShapeError);
    CHECK_THROWS_AS(Tensor<float>::empty({-1}), ShapeError);
    CHECK_THROWS_AS(x.size(2), ShapeError);
    CHECK_THROWS_AS(x.item(), ShapeError);
}

TEST_CASE("copies share memory and its version") {
    auto x = Tensor<float>::zeros({4});
    const auto same = x;
    const auto version = x.version();
    x.mutable_data()[2] = 5.0f;
    CHECK(same.to_vector() == std::vector<float>{0, 0, 5, 0});
    CHECK(same.version() == version + 1);
    CHECK(x.detach().data() == x.data());
}

TEST_CASE("strided views") {
    const auto x = Tensor<double>::from({0, 1, 2, 3, 4, 5}, {2, 3});
    const auto transposed = x.as_strided({3, 2}, {1, 3});
    CHECK_FALSE(transposed.is_contiguous());
    CHECK_THROWS_AS(transposed.to_vector(), ShapeError);
    const auto row = x.as_strided({3}, {1}, 3);
    CHECK(row.is_contiguous());
    CHECK(row.to_vector() == std::vector<double>{3, 4, 5});
    CHECK(row.as_strided({1}, {1}, 2).item() == 5.0); // offsets add up
    CHECK(x.as_strided({1, 3}, {77, 1}).is_contiguous());
    CHECK(x.as_strided({0, 3}, {1, 9}).is_contiguous());
    CHECK_FALSE(x.as_strided({2, 2}, {0, 1}).is_contiguous());
}

TEST_CASE("mapped memory cannot be written") {
    auto owner = std::make_shared<std::vector<float>>(std::vector<float>{1, 2});
    auto x = Tensor<float>::map(owner->data(), {2}, owner);
    CHECK(x.to_vector() == *owner);
    CHECK_THROWS_AS(x.mutable_data(), Error);
}
