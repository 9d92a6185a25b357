// Singular values: the largest ones of a matrix with their vectors, exactly or by random projection.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "lowrank/adapters/qr.hpp"
#include "lowrank/core/random.hpp"
#include "lowrank/nn/initialize.hpp"
#include "lowrank/ops/cast.hpp"
#include "lowrank/ops/elementwise.hpp"
#include "lowrank/ops/matmul.hpp"
#include "lowrank/ops/reduce.hpp"
#include "lowrank/ops/views.hpp"
#include "lowrank/tensor/weight.hpp"

#if __has_include(<Eigen/Eigenvalues>)
#include <Eigen/Eigenvalues>
#elif __has_include(<eigen3/Eigen/Eigenvalues>)
#include <eigen3/Eigen/Eigenvalues>
#else
#error "lowrank/adapters/svd.hpp needs Eigen. On Debian: apt-get install libeigen3-dev"
#endif

namespace lowrank {

/// The k largest singular values of a matrix [m, n], falling, and their vectors: matrix ≈ u·diag(s)·vt.
template <class C, DeviceTag D>
struct Svd {
    Tensor<C, D> u;  ///< [m, k]
    Tensor<C, D> s;  ///< [k]
    Tensor<C, D> vt; ///< [k, n]
};

namespace detail {

/// The eigenvectors of the k largest eigenvalues of a symmetric matrix, as columns [n, k], on the host.
template <DeviceTag D>
Tensor<double, D> top_eigenvectors(const Tensor<double, D>& symmetric, std::int64_t k) {
    const std::int64_t n = symmetric.size(0);
    std::vector<double> values = symmetric.to_vector();
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(Eigen::Map<Eigen::MatrixXd>(values.data(), n, n));
    if (solver.info() != Eigen::Success) {
        throw NumericError(
            concat("svd: the decomposition of a matrix of order ", n, " failed; are its values finite?"));
    }
    values.resize(static_cast<std::size_t>(n * k));
    for (std::int64_t i = 0; i < n; ++i) {
        for (std::int64_t j = 0; j < k; ++j) { // Eigen's eigenvalues rise
            values[static_cast<std::size_t>(i * k + j)] = solver.eigenvectors()(i, n - 1 - j);
        }
    }
    return Tensor<double, D>::from(values, {n, k});
}

template <class C, DeviceTag D>
void check_svd(const Tensor<C, D>& matrix, std::int64_t k) {
    if (matrix.rank() != 2 || k < 1 || k > std::min(matrix.size(0), matrix.size(1))) {
        throw ShapeError(concat("svd: no ", k, " singular values in a matrix of shape ", matrix.shape()));
    }
}

} // namespace detail

/// The k largest singular values and their vectors, from the eigenvectors of the smaller one of A·Aᵀ and Aᵀ·A in
/// double: as exact as a float matrix allows, with about 1e-8 of the largest value lost for a double one. Throws
/// ShapeError unless 1 ≤ k ≤ min(m, n), NumericError for a matrix that is not finite.
template <class C, DeviceTag D>
Svd<C, D> svd(const Tensor<C, D>& matrix, std::int64_t k) {
    detail::check_svd(matrix, k);
    const NoGrad no_grad;
    const bool is_wide = matrix.size(0) < matrix.size(1);
    const Tensor<double, D> a = cast<double>(matrix), flat = is_wide ? a : transpose(a), tall = transpose(flat);
    const Tensor<double, D> vectors = detail::top_eigenvectors(matmul(flat, tall), k);
    const Tensor<double, D> others = matmul(tall, vectors), s = sqrt(sum(others * others, {0}));
    std::vector<double> inverse = s.to_vector(); // vectors of singular values that are zero are zero, too
    for (double& value : inverse) {
        value = value > 0 ? 1 / value : 0;
    }
    const Tensor<double, D> scaled = others * Tensor<double, D>::from(inverse, {k});
    return {contiguous(cast<C>(is_wide ? vectors : scaled)), cast<C>(s),
            contiguous(cast<C>(transpose(is_wide ? scaled : vectors)))};
}

/// The same approximately, by random projection and power iterations, for matrices whose order is large beside k.
/// Halko, Martinsson and Tropp, "Finding structure with randomness", 2011, algorithms 4.4 and 5.1, with ten vectors
/// more than asked for. Each iteration shrinks the share of the smaller singular values by the square of their ratio
/// to the k-th. The same seed gives the same result.
template <class C, DeviceTag D>
Svd<C, D> randomized_svd(const Tensor<C, D>& matrix, std::int64_t k, int iterations, std::uint64_t seed = 0) {
    detail::check_svd(matrix, k);
    constexpr std::int64_t oversampling = 10;
    const std::int64_t n = matrix.size(1), width = k + oversampling;
    if (width >= std::min(matrix.size(0), n)) {
        return svd(matrix, k);
    }
    const NoGrad no_grad;
    Rng rng(seed);
    const Tensor<C, D> directions = detail::drawn<C, D>({n, width}, [&] { return rng.normal(); });
    Tensor<C, D> q = qr(matmul(matrix, directions)).q;
    for (int i = 0; i < iterations; ++i) {
        q = qr(matmul(matrix, qr(matmul(transpose(matrix), q)).q)).q;
    }
    Svd<C, D> small = svd(matmul(transpose(q), matrix), k);
    small.u = matmul(q, small.u);
    return small;
}

/// svd where the order of the matrix is moderate, and otherwise randomized_svd with iterations enough to be as good.
template <class C, DeviceTag D>
Svd<C, D> leading_svd(const Tensor<C, D>& matrix, std::int64_t k, std::uint64_t seed) {
    constexpr std::int64_t moderate = 1024;
    const std::int64_t order = matrix.rank() == 2 ? std::min(matrix.size(0), matrix.size(1)) : 0;
    return order <= moderate || k > order / 4 ? svd(matrix, k) : randomized_svd(matrix, k, 16, seed);
}

/// A matrix as [out, in], whatever it is stored as.
template <class C, DeviceTag D>
Tensor<C, D> as_out_in(const Tensor<C, D>& stored, Orientation orientation) {
    return orientation == Orientation::out_in ? stored : contiguous(transpose(stored));
}

/// The smallest rank whose singular values hold at least this share of the sum of squares of all, 0 < energy ≤ 1.
/// `s` falls. Zero where all are zero.
inline std::int64_t rank_of_energy(const std::vector<double>& s, double energy) {
    double total = 0, kept = 0;
    for (const double value : s) {
        total += value * value;
    }
    std::int64_t rank = 0;
    while (kept < energy * total && rank < static_cast<std::int64_t>(s.size())) {
        kept += s[static_cast<std::size_t>(rank)] * s[static_cast<std::size_t>(rank)];
        ++rank;
    }
    return rank;
}

} // namespace lowrank
