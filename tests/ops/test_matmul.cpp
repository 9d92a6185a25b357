#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <span>
#include <utility>
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

template <class T>
Tensor<double> size_of_each(const Tensor<T>& x) {
    return sqrt(square(cast<double>(x)));
}

/// The largest error of an element of a·b, as a part of the sum of its products' magnitudes.
double worst_error(const Tensor<float>& a, const Tensor<float>& b) {
    const auto expected = naive(a, b), size = naive(size_of_each(a), size_of_each(b));
    const auto y = matmul(a, b).to_vector();
    double worst = 0;
    for (std::size_t i = 0; i < y.size(); ++i) {
        worst = std::max(worst, std::abs(y[i] - expected[i]) / size[i]);
    }
    return worst;
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
                if (m > 8) { // however b lies in memory; few rows are multiplied in its order
                    CHECK(matmul(a, contiguous(transpose(b, 0, 1))).to_vector() == y);
                }
            }
        }
    }
}

TEST_CASE("a long inner dimension is summed part by part") {
    Rng rng(8);
    for (const std::int64_t k : {2049, 20000}) {
        CAPTURE(k);
        const auto a = random_tensor<float>({20, k}, rng), b = random_tensor<float>({k, 70}, rng);
        CHECK(worst_error(a, b) < 1e-6);
    }
}

TEST_CASE("products of float have float's precision, also where bf16 forms them") {
    Rng rng(6);
    const auto spread = [&](const Shape& shape) { // over 13 powers of ten, side by side
        std::vector<float> values(static_cast<std::size_t>(numel(shape)));
        for (float& value : values) {
            value = static_cast<float>((2 * rng.uniform() - 1) * std::exp2(40 * rng.uniform() - 20));
        }
        return Tensor<float>::from(values, shape);
    };
    for (const auto& [a, b] : {std::pair(spread({41, 777}), spread({777, 71})),
                               std::pair(transpose(spread({777, 41}), 0, 1), transpose(spread({71, 777}), 0, 1))}) {
        CHECK(worst_error(a, b) < 1.2e-6);
    }
}

TEST_CASE("every float keeps its bits in a product with a power of two") {
    constexpr std::int64_t n = 64;
    Rng rng(7);
    const std::vector<float> special{std::numeric_limits<float>::max(),
                                     std::numeric_limits<float>::lowest(),
                                     0x1.ffp127f,
                                     0x1p-100f,
                                     0x1.fffffep-101f,
                                     -0.0f,
                                     1 + 0x1p-23f,
                                     0x1.00ff01p0f,
                                     0x1.017fffp0f};
    std::vector<float> diagonal(n);
    for (float& value : diagonal) {
        value = static_cast<float>((2 * rng.uniform() - 1) * std::exp2(200 * rng.uniform() - 100));
    }
    std::copy(special.begin(), special.end(), diagonal.begin());
    std::copy(special.begin(), special.end(), diagonal.begin() + 16); // the other half of their chunk's pairs
    std::vector<float> a(n * n), b(n * n);
    for (std::size_t i = 0; i < n; ++i) {
        a[i * n + i] = diagonal[i];
        b[i * n + (i + 5) % n] = 0.5f;
    }
    const auto left = Tensor<float>::from(a, {n, n}), right = Tensor<float>::from(b, {n, n});
    const auto y = matmul(left, right).to_vector(), z = matmul(right, left).to_vector();
    for (std::size_t i = 0; i < n; ++i) {
        CHECK(y[i * n + (i + 5) % n] == 0.5f * diagonal[i]);
        CHECK(z[i * n + (i + 5) % n] == 0.5f * diagonal[(i + 5) % n]);
    }
    CHECK(std::count(y.begin(), y.end(), 0.0f) == n * n - n + 2);

    for (const float odd : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
        a[3 * n + 3] = odd;
        const auto rows = matmul(Tensor<float>::from(a, {n, n}), right).to_vector();
        CHECK(!std::isfinite(rows[3 * n + 8]));
        CHECK(std::all_of(rows.begin(), rows.begin() + 3 * n, [](float value) { return std::isfinite(value); }));
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
                CHECK((m <= 8 || bits(matmul(a, contiguous(transpose(b, 0, 1)))) == bits(y)));
                const auto columns = contiguous(transpose(a, 0, 1));
                CHECK(bits(matmul(transpose(columns, 0, 1), transpose(b, 0, 1))) == bits(y));
            }
        }
    }
}

TEST_CASE_TEMPLATE("a row's bits do not depend on the rows beside it, but on whether there are more than eight", T,
                   float, bf16) {
    Rng rng(4);
    const auto check = [&](const Tensor<T>& a, const Tensor<T>& b, std::int64_t first, std::int64_t rows) {
        const auto all = cast<float>(matmul(a, b)).to_vector();
        const auto some = cast<float>(matmul(slice(a, 0, first, first + rows), b)).to_vector();
        CAPTURE(b.size(1));
        CAPTURE(rows);
        CHECK(std::equal(some.begin(), some.end(), all.begin() + first * b.size(1)));
    };
    for (const std::int64_t n : {5, 40, 999}) {
        const auto a = cast<T>(random_tensor<float>({40, 300}, rng)), b = cast<T>(random_tensor<float>({300, n}, rng));
        const auto turned = transpose(contiguous(transpose(b, 0, 1)), 0, 1);
        for (const auto& factor : {b, turned}) {
            for (const std::int64_t rows : {9, 14, 15}) {
                check(a, factor, 20, rows);
            }
            for (const std::int64_t rows : {1, 2, 4, 7}) {
                check(slice(a, 0, 20, 28), factor, 1, rows);
            }
        }
    }
}

TEST_CASE_TEMPLATE("few rows are multiplied by a factor as it lies", T, float, double, bf16) {
    // Right factors of every kind: rows or columns contiguous, or neither; parameters; a weight of another type.
    using C = compute_t<T>;
    Rng rng(6);
    for (const std::int64_t m : {1, 2, 5, 8}) {
        for (const std::int64_t k : {1, 7, 8, 19, 300}) {
            for (const std::int64_t n : {1, 3, 16, 35, 9000}) {
                const auto a = cast<T>(random_tensor<float>({m, k}, rng));
                const auto parameters = cast<C>(cast<bf16>(random_tensor<float>({k, n}, rng))); // exact in every type
                const auto b = cast<T>(parameters), turned = contiguous(transpose(b, 0, 1));
                const auto spread = contiguous(stack<T, Cpu>({b, b}, 2));
                const auto expected = naive(cast<double>(a), cast<double>(b));
                const auto sizes = naive(size_of_each(a), size_of_each(b));
                const WeightSlot<C, Cpu> by_rows(
                    std::make_shared<DenseWeight<bf16, Cpu>>(cast<bf16>(parameters), Orientation::in_out));
                const WeightSlot<C, Cpu> by_columns(
                    std::make_shared<DenseWeight<bf16, Cpu>>(cast<bf16>(turned), Orientation::out_in));
                const std::vector<MatrixOperand<T, Cpu>> kinds{{matrix(b.data(), n)},
                                                               {matrix(turned.data(), k).transposed()},
                                                               {MatrixView<T>(spread.data(), 2 * n, 2)},
                                                               {matrix(parameters.data(), n)},
                                                               {by_rows, false},
                                                               {by_columns, false}};
                for (std::size_t kind = 0; kind < kinds.size(); ++kind) {
                    std::vector<C> y(std::size_t(m * n), C(-1));
                    const std::vector<MatmulSegment<T, Cpu>> segments{{matrix(a.data(), k), kinds[kind], k, C(0.5)},
                                                                      {matrix(a.data(), k), kinds[kind], k, C(0.5)}};
                    matmul(Cpu{}, m, n, std::span<const MatmulSegment<T, Cpu>>(segments), y.data(),
                           MatmulEpilogue<T, C>{});
                    double worst = 0; // in units of what rounding the sums allows
                    for (std::size_t i = 0; i < y.size(); ++i) {
                        const double allowed = double(k + 2) * 0x1p-24 * sizes[i] + 1e-30;
                        worst = std::max(worst, std::abs(double(y[i]) - expected[i]) / allowed);
                    }
                    CAPTURE(m);
                    CAPTURE(k);
                    CAPTURE(n);
                    CAPTURE(kind);
                    CHECK(worst <= 1);
                }
            }
        }
    }
}

TEST_CASE_TEMPLATE("one, two and three threads give the same bits", T, float, bf16) {
    Rng rng(3);
    const auto a = cast<T>(random_tensor<float>({300, 500}, rng)), b = cast<T>(random_tensor<float>({500, 200}, rng));
    const int before = num_threads();
    for (const std::int64_t rows : {2, 300}) {
        for (const auto& factor : {b, transpose(contiguous(transpose(b, 0, 1)), 0, 1)}) {
            const auto some = slice(a, 0, 0, rows);
            set_num_threads(1);
            const auto one = cast<float>(matmul(some, factor)).to_vector();
            for (const int threads : {2, 3}) {
                set_num_threads(threads);
                CHECK(cast<float>(matmul(some, factor)).to_vector() == one);
            }
        }
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
