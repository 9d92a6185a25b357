// QR and singular values: against Eigen's full decomposition, and what they must be by definition.

#include <cmath>
#include <Eigen/SVD>

#include "lowrank/adapters/svd.hpp"
#include "random_tensor.hpp"
#include "reference.hpp"

using namespace lowrank;
using lowrank::testing::random_tensor;
using lowrank::testing::relative_error;

namespace {

/// diag(s).
template <class C>
Tensor<C> diagonal(const Tensor<C>& s) {
    const std::int64_t k = s.size(0);
    Tensor<C> d = Tensor<C>::zeros({k, k});
    for (std::int64_t i = 0; i < k; ++i) {
        d.mutable_data()[i * k + i] = s.data()[i];
    }
    return d;
}

/// A matrix [m, n] with these singular values.
template <class C>
Tensor<C> matrix_with(std::int64_t m, std::int64_t n, const std::vector<C>& s, Rng& rng) {
    const auto k = static_cast<std::int64_t>(s.size());
    return matmul(matmul(qr(random_tensor<C>({m, k}, rng)).q, diagonal(Tensor<C>::from(s, {k}))),
                  contiguous(transpose(qr(random_tensor<C>({n, k}, rng)).q)));
}

/// How far the columns of a matrix are from orthonormal.
template <class C>
double skewness(const Tensor<C>& q) {
    const Tensor<C> product = matmul(transpose(q), q);
    return relative_error(product, diagonal(Tensor<C>::full({q.size(1)}, 1)));
}

template <class C>
void check_against_eigen(std::int64_t m, std::int64_t n, double tolerance) {
    CAPTURE(m);
    CAPTURE(n);
    Rng rng(7);
    const Tensor<C> a = random_tensor<C>({m, n}, rng);
    Eigen::MatrixXd matrix(m, n);
    for (std::int64_t i = 0; i < m * n; ++i) {
        matrix(i / n, i % n) = static_cast<double>(a.data()[i]);
    }
    const Eigen::JacobiSVD<Eigen::MatrixXd> eigen(matrix, Eigen::ComputeThinU | Eigen::ComputeThinV);
    const std::int64_t all = std::min(m, n);
    for (const std::int64_t k : {std::int64_t(1), all / 2, all}) {
        const Svd<C, Cpu> found = svd(a, k);
        REQUIRE(found.u.shape() == Shape{m, k});
        REQUIRE(found.vt.shape() == Shape{k, n});
        Tensor<double> s = Tensor<double>::empty({k}), best = Tensor<double>::empty({m, n});
        for (std::int64_t i = 0; i < k; ++i) {
            s.mutable_data()[i] = eigen.singularValues()(i);
        }
        const Eigen::MatrixXd truncated = eigen.matrixU().leftCols(k) * eigen.singularValues().head(k).asDiagonal() *
                                          eigen.matrixV().leftCols(k).transpose();
        for (std::int64_t i = 0; i < m * n; ++i) {
            best.mutable_data()[i] = truncated(i / n, i % n);
        }
        CHECK(relative_error(found.s, s) <= tolerance);
        CHECK(relative_error(matmul(found.u * found.s, found.vt), best) <= tolerance);
        CHECK(skewness(found.u) <= tolerance);
        CHECK(skewness(contiguous(transpose(found.vt))) <= tolerance);
    }
}

} // namespace

TEST_CASE("singular values and vectors are those of Eigen's full decomposition, tall, wide and square") {
    for (const auto& [m, n] : {std::pair(40, 13), std::pair(13, 40), std::pair(24, 24), std::pair(2, 2)}) {
        check_against_eigen<double>(m, n, 1e-11);
        check_against_eigen<float>(m, n, 1e-6);
    }
}

TEST_CASE("a random projection finds the large singular values, the same for the same seed") {
    Rng rng(3);
    std::vector<double> s(60);
    for (std::size_t i = 0; i < s.size(); ++i) {
        s[i] = std::pow(0.8, static_cast<double>(i));
    }
    for (const auto& [m, n] : {std::pair(200, 90), std::pair(90, 200)}) {
        const Tensor<double> a = matrix_with<double>(m, n, s, rng);
        const Svd<double, Cpu> exact = svd(a, 8), found = randomized_svd(a, 8, 4, 1),
                               rough = randomized_svd(a, 8, 0, 1);
        const auto product = [](const Svd<double, Cpu>& x) { return matmul(x.u * x.s, x.vt); };
        CHECK(relative_error(found.s, exact.s) <= 1e-9);
        CHECK(relative_error(product(found), product(exact)) <= 1e-6);
        CHECK(relative_error(product(rough), product(exact)) > 1e-4); // the iterations matter
        CHECK(relative_error(product(rough), product(exact)) < 0.2);
        CHECK(skewness(found.u) <= 1e-12);
        CHECK(randomized_svd(a, 8, 4, 1).u.to_vector() == found.u.to_vector());
        CHECK(randomized_svd(a, 8, 4, 2).u.to_vector() != found.u.to_vector());
        CHECK(relative_error(randomized_svd(cast<float>(a), 8, 4).s, exact.s) <= 1e-5);
    }
    // So small that nothing is saved: exact.
    const Tensor<double> small = random_tensor<double>({30, 12}, rng);
    CHECK(randomized_svd(small, 5, 0).s.to_vector() == svd(small, 5).s.to_vector());
}

TEST_CASE("a matrix of lower rank, and one of zeros") {
    Rng rng(4);
    const Tensor<double> a = matrix_with<double>(20, 9, {5, 2, 1}, rng);
    const Svd<double, Cpu> found = svd(a, 9);
    CHECK(relative_error(matmul(found.u * found.s, found.vt), a) <= 1e-13);
    CHECK(found.s.data()[2] == doctest::Approx(1).epsilon(1e-12));
    CHECK(found.s.data()[3] <= 1e-13);
    const Svd<float, Cpu> zero = svd(Tensor<float>::zeros({4, 6}), 2);
    CHECK(zero.s.to_vector() == std::vector<float>{0, 0});
    CHECK(zero.vt.to_vector() == std::vector<float>(12, 0));
    CHECK(rank_of_energy(found.s.to_vector(), 0.83) == 1);
    CHECK(rank_of_energy(found.s.to_vector(), 0.95) == 2);
    CHECK(rank_of_energy(found.s.to_vector(), 0.97) == 3);
    CHECK(rank_of_energy({0, 0}, 0.5) == 0);
}

TEST_CASE("QR has orthonormal columns, an upper triangle, and LAPACK's signs") {
    Rng rng(5);
    for (const auto& [m, n] : {std::pair(33, 7), std::pair(7, 33), std::pair(6, 6)}) {
        const Tensor<double> a = random_tensor<double>({m, n}, rng);
        const Qr<double, Cpu> found = qr(a);
        const std::int64_t k = std::min(m, n);
        REQUIRE(found.q.shape() == Shape{m, k});
        REQUIRE(found.r.shape() == Shape{k, n});
        CHECK(skewness(found.q) <= 1e-14);
        CHECK(relative_error(matmul(found.q, found.r), a) <= 1e-14);
        for (std::int64_t i = 0; i < k; ++i) {
            for (std::int64_t j = 0; j < i; ++j) {
                CHECK(found.r.data()[i * n + j] == 0);
            }
        }
        CHECK((found.r.data()[0] > 0) == (a.data()[0] < 0)); // R's first element is -sign(a)·‖column‖
        // The first columns of Q are the QR of the first columns alone.
        const Qr<double, Cpu> first = qr(contiguous(slice(a, 1, 0, 3)));
        CHECK(relative_error(first.q, contiguous(slice(found.q, 1, 0, 3))) <= 1e-14);
    }
    const Tensor<double> zero = Tensor<double>::zeros({4, 2});
    CHECK(qr(zero).r.to_vector() == std::vector<double>(4, 0));
    CHECK(skewness(qr(zero).q) == 0);
}

TEST_CASE("what cannot be decomposed is refused") {
    CHECK_THROWS_AS(svd(Tensor<float>::zeros({3, 4}), 4), ShapeError);
    CHECK_THROWS_AS(svd(Tensor<float>::zeros({3, 4}), 0), ShapeError);
    CHECK_THROWS_AS(randomized_svd(Tensor<float>::zeros({3}), 1, 1), ShapeError);
    CHECK_THROWS_AS(qr(Tensor<float>::zeros({3})), ShapeError);
    CHECK_THROWS_AS(svd(Tensor<float>::full({3, 3}, NAN), 1), NumericError);
}
