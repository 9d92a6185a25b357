#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "lowrank/autograd/gradient_check.hpp"
#include "lowrank/ops/cast.hpp"
#include "lowrank/ops/elementwise.hpp"
#include "lowrank/ops/matmul.hpp"
#include "lowrank/ops/views.hpp"
#include "random_tensor.hpp"
#include "reference.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

template <class T>
void compare(double tolerance) {
    for (const ReferenceCase& reference : reference_cases("matmul")) {
        reference.check<T>({"a", "b"}, tolerance, [&](const std::vector<Tensor<T>>& x) {
            const Tensor<T> a = reference.flag("transpose_a") ? transpose(x[0], -2, -1) : x[0];
            const Tensor<T> b = reference.flag("transpose_b") ? transpose(x[1], -2, -1) : x[1];
            return matmul(a, b);
        });
    }
}

template <class T>
std::vector<double> naive(const Tensor<T>& a, const Tensor<T>& b) {
    const std::int64_t m = a.size(0), k = a.size(1), n = b.size(1);
    std::vector<double> y(static_cast<std::size_t>(m * n));
    for (std::int64_t i = 0; i < m; ++i) {
        for (std::int64_t j = 0; j < n; ++j) {
            for (std::int64_t q = 0; q < k; ++q) {
                y[static_cast<std::size_t>(i * n + j)] +=
                    static_cast<double>(a.data()[i * a.strides()[0] + q * a.strides()[1]]) *
                    static_cast<double>(b.data()[q * b.strides()[0] + j * b.strides()[1]]);
            }
        }
    }
    return y;
}

Tensor<double> size_of_each(const Tensor<bf16>& x) {
    return sqrt(square(cast<double>(x)));
}

} // namespace

TEST_CASE("matmul equals PyTorch's, batched, broadcast and transposed") {
    compare<float>(2e-6);
    compare<double>(1e-7);
}

TEST_CASE("gradients of matmul, with broadcast batches and transposed views") {
    Rng rng(1);
    const auto a = random_tensor<double>({2, 1, 3, 4}, rng), b = random_tensor<double>({3, 2, 4}, rng);
    const auto report = gradient_check([](auto x, auto y) { return matmul(x, transpose(y, -2, -1)); }, a, b);
    CHECK_MESSAGE(report.ok, report.str());
}

TEST_CASE("sizes around every edge of the blocks") {
    Rng rng(2);
    for (const std::int64_t m : {1, 4, 13, 14, 15, 225, 505}) {
        for (const std::int64_t k : {1, 256, 257}) {
            for (const std::int64_t n : {1, 16, 17, 32, 33, 129}) {
                const auto a = random_tensor<float>({m, k}, rng), b = random_tensor<float>({n, k}, rng);
                const auto expected = naive(a, transpose(b, 0, 1));
                const auto y = matmul(a, transpose(b, 0, 1)).to_vector();
                double worst = 0;
                for (std::size_t i = 0; i < y.size(); ++i) {
                    worst = std::max(worst, std::abs(y[i] - expected[i]));
                }
                CAPTURE(m);
                CAPTURE(k);
                CAPTURE(n);
                CHECK(worst < 1e-4);
                CHECK(matmul(a, contiguous(transpose(b, 0, 1))).to_vector() == y); // however b lies in memory
            }
        }
    }
}

TEST_CASE("products of bf16 are summed in float, however their factors lie") {
    Rng rng(5);
    for (const std::int64_t m : {1, 5, 9, 16, 17, 33, 150, 300}) {
        for (const std::int64_t k : {1, 2, 31, 33, 300, 600}) {
            for (const std::int64_t n : {1, 8, 16, 17, 33, 49, 400}) {
                const auto a = cast<bf16>(random_tensor<float>({m, k}, rng));
                const auto b = cast<bf16>(random_tensor<float>({n, k}, rng));
                const auto expected = naive(cast<double>(a), transpose(cast<double>(b), 0, 1));
                const auto sizes = naive(size_of_each(a), transpose(size_of_each(b), 0, 1));
                const auto y = matmul(a, transpose(b, 0, 1));
                const auto found = cast<double>(y).to_vector();
                double worst = 0; // in units of what rounding the result and each sum allows
                for (std::size_t i = 0; i < found.size(); ++i) {
                    const double allowed = 0x1p-8 * std::abs(expected[i]) + double(k) * 0x1p-24 * sizes[i] + 1e-30;
                    worst = std::max(worst, std::abs(found[i] - expected[i]) / allowed);
                }
                CAPTURE(m);
                CAPTURE(k);
                CAPTURE(n);
                CHECK(worst < 1);
                const auto bits = [](const Tensor<bf16>& x) { return cast<float>(x).to_vector(); };
                CHECK(bits(matmul(a, contiguous(transpose(b, 0, 1)))) == bits(y));
                const auto columns = contiguous(transpose(a, 0, 1));
                CHECK(bits(matmul(transpose(columns, 0, 1), transpose(b, 0, 1))) == bits(y));
            }
        }
    }
}

TEST_CASE_TEMPLATE("a row's bits do not depend on the rows beside it", T, float, bf16) {
    Rng rng(4);
    for (const std::int64_t n : {5, 40, 999}) {
        const auto a = cast<T>(random_tensor<float>({40, 300}, rng)), b = cast<T>(random_tensor<float>({300, n}, rng));
        const auto all = cast<float>(matmul(a, b)).to_vector();
        for (const std::int64_t rows : {1, 2, 7, 14, 15}) {
            const auto some = cast<float>(matmul(slice(a, 0, 20, 20 + rows), b)).to_vector();
            CAPTURE(n);
            CAPTURE(rows);
            CHECK(std::equal(some.begin(), some.end(), all.begin() + 20 * n));
        }
    }
}

TEST_CASE_TEMPLATE("one, two and three threads give the same bits", T, float, bf16) {
    Rng rng(3);
    const auto a = cast<T>(random_tensor<float>({300, 500}, rng)), b = cast<T>(random_tensor<float>({500, 200}, rng));
    const int before = num_threads();
    set_num_threads(1);
    const auto one = cast<float>(matmul(a, b)).to_vector();
    for (const int threads : {2, 3}) {
        set_num_threads(threads);
        CHECK(cast<float>(matmul(a, b)).to_vector() == one);
    }
    set_num_threads(before);
}

TEST_CASE("nothing to sum gives zeros, nothing to compute gives nothing") {
    CHECK(matmul(Tensor<float>::empty({2, 0}), Tensor<float>::empty({0, 3})).to_vector() == std::vector<float>(6, 0));
    CHECK(matmul(Tensor<float>::empty({0, 4}), Tensor<float>::empty({4, 3})).shape() == Shape{0, 3});
    CHECK(matmul(Tensor<float>::empty({0, 2, 4}), Tensor<float>::empty({4, 3})).shape() == Shape{0, 2, 3});
}

TEST_CASE("shapes that do not fit are named") {
    const auto a = Tensor<float>::zeros({4, 8}), b = Tensor<float>::zeros({16, 3});
    CHECK_THROWS_WITH_AS(matmul(a, b), "matmul: inner dimensions differ: lhs [4, 8], rhs [16, 3] (8 vs 16)",
                         ShapeError);
    CHECK_THROWS_AS(matmul(a, Tensor<float>::zeros({8})), ShapeError);
    CHECK_THROWS_AS(matmul(Tensor<float>::zeros({2, 4, 8}), Tensor<float>::zeros({3, 8, 1})), ShapeError);
}
