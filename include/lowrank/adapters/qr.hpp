// QR: a matrix as orthonormal columns times an upper triangle, by Householder's reflections.
// Golub and Van Loan, "Matrix Computations", 4th edition, algorithm 5.2.1, with LAPACK's signs.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "lowrank/core/parallel.hpp"
#include "lowrank/tensor/tensor.hpp"

namespace lowrank {

/// matrix = q·r for a matrix [m, n]: q [m, k] has orthonormal columns, r [k, n] is zero below its diagonal, k = min(m,
/// n).
template <class C, DeviceTag D>
struct Qr {
    Tensor<C, D> q, r;
};

namespace detail {

/// The reflections of a QR, in double, on the host: column j of the matrix lies at columns[j · m].
class Reflections {
  public:
    Reflections(std::int64_t m, std::int64_t n, std::vector<double> columns)
        : m_(m),
          columns_(std::move(columns)),
          tau_(static_cast<std::size_t>(std::min(m, n))) {
        for (std::int64_t j = 0; j < std::min(m, n); ++j) {
            find(j);
            parallel_chunks(n - j - 1, 16, [&](std::int64_t begin, std::int64_t end) {
                for (std::int64_t c = j + 1 + begin; c < j + 1 + end; ++c) {
                    reflect(j, column(c));
                }
            });
        }
    }

    /// The upper triangle's element.
    double r(std::int64_t row, std::int64_t c) const {
        return row <= c ? columns_[static_cast<std::size_t>(c * m_ + row)] : 0;
    }

    /// A column of the orthonormal factor.
    std::vector<double> q(std::int64_t c) const {
        std::vector<double> unit(static_cast<std::size_t>(m_));
        unit[static_cast<std::size_t>(c)] = 1;
        for (std::int64_t j = c; j >= 0; --j) { // later reflections leave this column alone
            reflect(j, unit.data());
        }
        return unit;
    }

  private:
    double* column(std::int64_t c) { return columns_.data() + c * m_; }

    /// The reflection that clears column j below its diagonal; its vector, whose first element is 1, takes that place.
    void find(std::int64_t j) {
        double* x = column(j);
        double rest = 0;
        for (std::int64_t i = j + 1; i < m_; ++i) {
            rest += x[i] * x[i];
        }
        if (rest == 0) {
            return;
        }
        const double beta = -std::copysign(std::sqrt(x[j] * x[j] + rest), x[j]);
        tau_[static_cast<std::size_t>(j)] = (beta - x[j]) / beta;
        for (std::int64_t i = j + 1; i < m_; ++i) {
            x[i] /= x[j] - beta;
        }
        x[j] = beta;
    }

    void reflect(std::int64_t j, double* x) const {
        const double* v = columns_.data() + j * m_;
        double dot = x[j];
        for (std::int64_t i = j + 1; i < m_; ++i) {
            dot += v[i] * x[i];
        }
        dot *= tau_[static_cast<std::size_t>(j)];
        x[j] -= dot;
        for (std::int64_t i = j + 1; i < m_; ++i) {
            x[i] -= dot * v[i];
        }
    }

    std::int64_t m_;
    std::vector<double> columns_, tau_;
};

} // namespace detail

/// The thin QR of a contiguous matrix, computed in double on the host. Throws ShapeError for what is no matrix.
template <class C, DeviceTag D>
Qr<C, D> qr(const Tensor<C, D>& matrix) {
    if (matrix.rank() != 2) {
        throw ShapeError(concat("qr: expected a matrix, found shape ", matrix.shape()));
    }
    const std::int64_t m = matrix.size(0), n = matrix.size(1), k = std::min(m, n);
    const std::vector<C> values = matrix.to_vector();
    std::vector<double> columns(values.size());
    for (std::int64_t i = 0; i < m; ++i) {
        for (std::int64_t j = 0; j < n; ++j) {
            columns[static_cast<std::size_t>(j * m + i)] =
                static_cast<double>(values[static_cast<std::size_t>(i * n + j)]);
        }
    }
    const detail::Reflections reflections(m, n, std::move(columns));
    std::vector<C> q(static_cast<std::size_t>(m * k)), r(static_cast<std::size_t>(k * n));
    parallel_for(k, [&](std::int64_t c) {
        const std::vector<double> column = reflections.q(c);
        for (std::int64_t i = 0; i < m; ++i) {
            q[static_cast<std::size_t>(i * k + c)] = static_cast<C>(column[static_cast<std::size_t>(i)]);
        }
    });
    for (std::int64_t i = 0; i < k; ++i) {
        for (std::int64_t j = 0; j < n; ++j) {
            r[static_cast<std::size_t>(i * n + j)] = static_cast<C>(reflections.r(i, j));
        }
    }
    return {Tensor<C, D>::from(q, {m, k}), Tensor<C, D>::from(r, {k, n})};
}

} // namespace lowrank
