// The driver of row ops on the host: rows in parallel, and within a row maxima, sums and maps over vectors.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "lowrank/backend/cpu/strided_loop.hpp"
#include "lowrank/core/scalar.hpp"
#include "lowrank/simd/dispatch.hpp"
#include "lowrank/simd/functions.hpp"
#include "lowrank/simd/memory.hpp"

namespace lowrank {

/// Calls `body(row)` for every row, in parallel; neighbouring short rows share a task.
template <class Body>
void for_rows(std::int64_t rows, std::int64_t width, const Body& body) {
    const std::int64_t grain = std::max<std::int64_t>(1, elementwise_grain / std::max<std::int64_t>(1, width));
    parallel_chunks(rows, grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row) {
            body(row);
        }
    });
}

namespace detail {

/// The vector type of a kernel compiled for `Width` floats, for values of type S.
template <class S, int Width>
using RowVector = simd::Vec<S, Width * 4 / static_cast<int>(sizeof(S))>;

/// Where in a row a step works: a whole vector from element `i`, or the `rest` elements at the row's end.
template <class V, bool Whole>
struct RowStep {
    std::int64_t i;
    std::size_t rest;

    template <class T>
    LOWRANK_INLINE V load(const T* row, typename V::scalar fill = 0) const {
        if constexpr (Whole) {
            return simd::load<V>(row + i);
        } else {
            return simd::load<V>(row + i, rest, fill);
        }
    }
    template <class T>
    LOWRANK_INLINE void store(V value, T* row) const {
        if constexpr (Whole) {
            simd::store(value, row + i);
        } else {
            simd::store(value, row + i, rest);
        }
    }
};

/// What is left at a row's end, less than a vector: told to g++, which otherwise sees accesses beyond the vector.
template <class V>
LOWRANK_INLINE std::size_t row_rest(std::int64_t count) {
    return std::size_t(count) % V::size;
}

/// Calls `body(step)` for every vector of a row of n elements.
template <class V, class Body>
LOWRANK_INLINE void row_map(std::int64_t n, const Body& body) {
    std::int64_t i = 0;
    for (; i + V::size <= n; i += V::size) {
        body(RowStep<V, true>{i, std::size_t(V::size)});
    }
    if (i < n) {
        body(RowStep<V, false>{i, row_rest<V>(n - i)});
    }
}

/// The sum of `term(step)` over a row: in the lanes for a while, and then in double. A term's lanes beyond the row's
/// end do not count.
template <class V, class Term>
LOWRANK_INLINE double row_sum(std::int64_t n, const Term& term) {
    constexpr std::int64_t block = 32 * V::size;
    double total = 0;
    std::int64_t i = 0;
    while (i + V::size <= n) {
        const std::int64_t end = std::min(n - V::size, i + block - V::size);
        V even(0), odd(0); // two chains hide the latency of the addition
        for (; i + V::size <= end; i += 2 * V::size) {
            even += term(RowStep<V, true>{i, std::size_t(V::size)});
            odd += term(RowStep<V, true>{i + V::size, std::size_t(V::size)});
        }
        for (; i <= end; i += V::size) {
            even += term(RowStep<V, true>{i, std::size_t(V::size)});
        }
        total += static_cast<double>(reduce_add(even + odd));
    }
    if (i < n) {
        const V last = term(RowStep<V, false>{i, row_rest<V>(n - i)});
        for (std::int64_t lane = 0; lane < n - i; ++lane) {
            total += static_cast<double>(last[static_cast<int>(lane)]);
        }
    }
    return total;
}

/// The largest element of a row; −∞ of none. A NaN is passed over.
template <class V, class T>
LOWRANK_INLINE typename V::scalar row_max(std::int64_t n, const T* x) {
    using S = typename V::scalar;
    const S least = -std::numeric_limits<S>::infinity();
    V even(least), odd(least);
    std::int64_t i = 0;
    for (; i + 2 * V::size <= n; i += 2 * V::size) {
        even = max(even, simd::load<V>(x + i));
        odd = max(odd, simd::load<V>(x + i + V::size));
    }
    for (; i + V::size <= n; i += V::size) {
        even = max(even, simd::load<V>(x + i));
    }
    if (i < n) {
        odd = max(odd, simd::load<V>(x + i, row_rest<V>(n - i), least));
    }
    return reduce_max(max(even, odd));
}

/// Terms of sums and maps: x itself, one number, and the product of two terms.
template <class T>
struct RowValue {
    const T* x;
    template <class V, bool Whole>
    LOWRANK_INLINE V operator()(const RowStep<V, Whole>& step) const {
        return step.load(x);
    }
};

template <class S>
struct RowConstant {
    S value;
    template <class V, bool Whole>
    LOWRANK_INLINE V operator()(const RowStep<V, Whole>&) const {
        return V(value);
    }
};

template <class A, class B>
struct RowProduct {
    A a;
    B b;
    template <class V, bool Whole>
    LOWRANK_INLINE V operator()(const RowStep<V, Whole>& step) const {
        return a(step) * b(step);
    }
};

template <class Term>
struct RowSquare {
    Term term;
    template <class V, bool Whole>
    LOWRANK_INLINE V operator()(const RowStep<V, Whole>& step) const {
        const V value = term(step);
        return value * value;
    }
};

/// Σ a·b over a row, in double.
struct RowDot {
    template <int Width, class A, class B>
    [[gnu::always_inline]] static inline double run(std::int64_t n, const A* a, const B* b) {
        using V = RowVector<compute_t<A>, Width>;
        return row_sum<V>(n, RowProduct<RowValue<A>, RowValue<B>>{{a}, {b}});
    }
};

/// exp(x − shift) over a row.
template <class T, class S>
struct RowExponential {
    const T* x;
    S shift;
    template <class V, bool Whole>
    LOWRANK_INLINE V operator()(const RowStep<V, Whole>& step) const {
        return simd::exp(step.load(x) - V(shift));
    }
};

/// y = exp(x − shift) · factor over a row.
template <class T, class S, class Y = T>
struct RowScaledExponential {
    RowExponential<T, S> exponential;
    S factor;
    Y* y;
    template <class V, bool Whole>
    LOWRANK_INLINE void operator()(const RowStep<V, Whole>& step) const {
        step.store(exponential(step) * V(factor), y);
    }
};

/// What normalizes a row: its largest element and the sum of exp(x − maximum).
template <class S>
struct RowNormalizer {
    S maximum;
    double sum;

    template <int Width, class T>
    LOWRANK_INLINE static RowNormalizer of(std::int64_t n, const T* x) {
        using V = RowVector<S, Width>;
        const S maximum = row_max<V>(n, x);
        return {maximum, row_sum<V>(n, RowExponential<T, S>{x, maximum})};
    }
};

} // namespace detail
} // namespace lowrank
