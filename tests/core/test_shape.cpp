#include <doctest/doctest.h>
#include <limits>
#include <vector>

#include "lowrank/core/shape.hpp"

using namespace lowrank;

TEST_CASE("extents hold up to eight dimensions") {
    Extents shape{2, 3};
    shape.push_back(4);
    CHECK(shape.rank() == 3);
    CHECK(shape.str() == "[2, 3, 4]");
    CHECK(Extents{}.str() == "[]");
    CHECK(shape == Extents{2, 3, 4});
    CHECK(shape != Extents{2, 3});
    CHECK_THROWS_AS((Extents{1, 2, 3, 4, 5, 6, 7, 8, 9}), ShapeError);
    Extents full{1, 2, 3, 4, 5, 6, 7, 8};
    CHECK_THROWS_AS(full.push_back(9), ShapeError);
}

TEST_CASE("numel refuses negative extents and overflow") {
    CHECK(numel({}) == 1);
    CHECK(numel({2, 0, 3}) == 0);
    CHECK(numel({2, 3, 4}) == 24);
    CHECK_THROWS_AS(numel({2, -1}), ShapeError);
    CHECK_THROWS_AS(numel({std::numeric_limits<std::int64_t>::max(), 2}), ShapeError);
}

TEST_CASE("row-major strides") {
    CHECK(row_major({2, 3, 4}) == Strides{12, 4, 1});
    CHECK(row_major({}) == Strides{});
}

TEST_CASE("dimensions count from both ends") {
    CHECK(normalize_dim(-1, 3, "op") == 2);
    CHECK(normalize_dim(0, 3, "op") == 0);
    CHECK_THROWS_WITH_AS(normalize_dim(3, 3, "op"), "op: dimension 3 of a tensor with 3 dimensions", ShapeError);
    CHECK_THROWS_AS(normalize_dim(-4, 3, "op"), ShapeError);
    CHECK_THROWS_AS(normalize_dim(0, 0, "op"), ShapeError);
}

TEST_CASE("broadcasting follows NumPy's rule") {
    CHECK(broadcast({2, 1, 4}, {3, 1}, "op") == Shape{2, 3, 4});
    CHECK(broadcast({}, {5}, "op") == Shape{5});
    CHECK(broadcast({0}, {1}, "op") == Shape{0});
    CHECK_THROWS_WITH_AS(broadcast({4, 8}, {16, 3}, "add"),
                         "add: shapes do not broadcast: lhs [4, 8], rhs [16, 3] (4 vs 16)", ShapeError);
    CHECK_THROWS_AS(broadcast({0}, {2}, "op"), ShapeError);
    CHECK(broadcast_strides({3, 1}, {1, 1}, {2, 3, 4}) == Strides{0, 1, 0});
}
