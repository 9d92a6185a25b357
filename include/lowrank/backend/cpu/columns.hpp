// Sums and products by column of a row-major matrix, and gathering of rows, on the host.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "lowrank/backend/cpu/rows.hpp"
#include "lowrank/core/device.hpp"
#include "lowrank/tensor/copy_block.hpp"

namespace lowrank {
namespace detail {

/// The rows of a row-major matrix [.., n], and the products of those of two matrices, as terms of sums.
template <class T>
struct MatrixRows {
    const T* x;
    std::int64_t n;
    LOWRANK_INLINE RowValue<T> operator()(std::int64_t i) const { return {x + i * n}; }
};

template <class A, class B>
struct ProductRows {
    A a;
    B b;
    LOWRANK_INLINE auto operator()(std::int64_t i) const {
        using Product = RowProduct<decltype(a(i)), decltype(b(i))>;
        return Product{a(i), b(i)};
    }
};

/// sums += a term over a row.
template <class Term>
struct AddedTerm {
    Term term;
    double* sums;
    template <class V, bool Whole>
    LOWRANK_INLINE void operator()(const RowStep<V, Whole>& step) const {
        step.store(step.load(sums) + term(step), sums);
    }
};

/// sums[j] += Σ_i row(i)(j) over the rows begin … end-1, one after the other, of n columns.
struct SumColumns {
    template <int Width, class Rows>
    LOWRANK_INLINE static void run(const Rows& row, std::int64_t begin, std::int64_t end, std::int64_t n,
                                   double* sums) {
        using V = RowVector<double, Width>;
        for (std::int64_t i = begin; i < end; ++i) {
            row_map<V>(n, AddedTerm<decltype(row(i))>{row(i), sums});
        }
    }
};

/// out[j] = Σ_i row(i)(j), summed in double, in the order of the rows within pieces that depend on the shape alone;
/// row(i) is a term as of row_sum (rows.hpp).
template <class C, class Rows>
void sum_columns(std::int64_t rows, std::int64_t n, C* out, const Rows& row) {
    constexpr std::int64_t most_pieces = 16, least_elements = 65536; // of a piece: whole rows, as memory has them
    const std::int64_t piece = std::max((rows + most_pieces - 1) / most_pieces,
                                        std::max<std::int64_t>(1, least_elements / std::max<std::int64_t>(1, n)));
    const std::int64_t pieces = (rows + piece - 1) / piece;
    std::vector<double> partial(static_cast<std::size_t>(std::max<std::int64_t>(1, pieces) * n), 0.0);
    double* sums = partial.data();
    parallel_chunks(rows, piece, [&](std::int64_t begin, std::int64_t end) {
        simd::run_for_isa<SumColumns>(row, begin, end, n, sums + begin / piece * n);
    });
    for (std::int64_t p = 1; p < pieces; ++p) {
        std::transform(sums, sums + n, sums + p * n, sums, std::plus<>());
    }
    std::transform(sums, sums + n, out, convert<C, double>);
}

/// y = a term over a row.
template <class Term, class T>
struct StoredTerm {
    Term term;
    T* y;
    template <class V, bool Whole>
    LOWRANK_INLINE void operator()(const RowStep<V, Whole>& step) const {
        step.store(term(step), y);
    }
};

struct StoreRow {
    template <int Width, class Term, class T>
    LOWRANK_INLINE static void run(std::int64_t n, const Term& term, T* y) {
        row_map<RowVector<compute_t<T>, Width>>(n, StoredTerm<Term, T>{term, y});
    }
};

} // namespace detail

/// out[j] = Σ_i x[i, j] for x [rows, n].
template <class T>
void sum_rows(Cpu, std::int64_t rows, std::int64_t n, const T* x, compute_t<T>* out) {
    detail::sum_columns(rows, n, out, detail::MatrixRows<T>{x, n});
}

/// out[j] = Σ_i x[i, j]·y[i, j] for x, y [rows, n].
template <class T>
void dot_rows(Cpu, std::int64_t rows, std::int64_t n, const T* x, const T* y, compute_t<T>* out) {
    using Rows = detail::MatrixRows<T>;
    detail::sum_columns(rows, n, out, detail::ProductRows<Rows, Rows>{{x, n}, {y, n}});
}

/// y[i, j] = x[i, j]·scale[j] for x [rows, n].
template <class T>
void scale_columns(Cpu, std::int64_t rows, std::int64_t n, const T* x, const compute_t<T>* scale, T* y) {
    using Term = detail::RowProduct<detail::RowValue<T>, detail::RowValue<compute_t<T>>>;
    for_rows(rows, n, [=](std::int64_t i) {
        simd::run_for_isa<detail::StoreRow>(n, Term{{x + i * n}, {scale}}, y + i * n);
    });
}

/// y[i] = x[i]·factor[0]: the factor is read where the kernel runs.
template <class T, class C>
void scale_by(Cpu, std::int64_t n, const T* x, const C* factor, T* y) {
    using Term = detail::RowProduct<detail::RowValue<T>, detail::RowConstant<C>>;
    parallel_chunks(n, elementwise_grain, [=](std::int64_t begin, std::int64_t end) {
        simd::run_for_isa<detail::StoreRow>(end - begin, Term{{x + begin}, {*factor}}, y + begin);
    });
}

/// to[i, :] = from[index[i], :], converted, for rows of n elements.
template <class From, class To>
void gather_rows(Cpu, std::int64_t count, std::int64_t n, const std::int32_t* index, const From* from, To* to) {
    for_rows(count, n, [=](std::int64_t i) { copy_block(1, n, from + index[i] * n, n, to + i * n, n, 1); });
}

/// to[index[i], :] = from[i, :], converted, for rows of n elements; the indices are distinct.
template <class From, class To>
void scatter_rows(Cpu, std::int64_t count, std::int64_t n, const std::int32_t* index, const From* from, To* to) {
    for_rows(count, n, [=](std::int64_t i) { copy_block(1, n, from + i * n, n, to + index[i] * n, n, 1); });
}

} // namespace lowrank
