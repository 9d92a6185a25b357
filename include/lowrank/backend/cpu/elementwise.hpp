// The one elementwise kernel on the host: any formula over one, two or three strided operands, on SIMD vectors.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "lowrank/backend/cpu/strided_loop.hpp"
#include "lowrank/core/device.hpp"
#include "lowrank/core/scalar.hpp"
#include "lowrank/simd/dispatch.hpp"
#include "lowrank/simd/functions.hpp"
#include "lowrank/simd/memory.hpp"
#include "lowrank/simd/pow.hpp"

namespace lowrank {

namespace detail {

/// Elements that the vector loop handles at once: a multiple of every vector's size.
inline constexpr std::int64_t elementwise_unit = 16;

/// The vector loop: y[i] = f(x[0][i], …) for n elements, a multiple of elementwise_unit.
template <class T, std::size_t N>
struct ElementwiseVectors {
    template <int Width, class F>
    LOWRANK_INLINE static void run(const F& formula, T* y, const T* const* x, std::int64_t n) {
        using C = compute_t<T>;
        using V = simd::Vec<C, sizeof(C) == 8 ? Width / 2 : Width>;
        const F f = formula;
        for (std::int64_t i = 0; i < n; i += V::size) {
            if constexpr (N == 1) {
                simd::store(f(simd::load<V>(x[0] + i)), y + i);
            } else if constexpr (N == 2) {
                simd::store(f(simd::load<V>(x[0] + i), simd::load<V>(x[1] + i)), y + i);
            } else {
                simd::store(f(simd::load<V>(x[0] + i), simd::load<V>(x[1] + i), simd::load<V>(x[2] + i)), y + i);
            }
        }
    }
};

/// A formula whose type is forgotten, so that what surrounds the vector loop is compiled once.
template <class T>
struct ElementwiseFormula {
    void (*run)(const void* f, T* y, const T* const* x, std::int64_t n);
    const void* f;

    void operator()(T* y, const T* const* x, std::int64_t n) const { run(f, y, x, n); }
};

/// One run of n elements: y[i] = f(x[0][i · steps[0]], …). Every element goes through the same vector code, whatever
/// the layout, so that results do not depend on it: operands with gaps are gathered first, and so is the end.
template <class T, std::size_t N>
void elementwise_run(const ElementwiseFormula<T>& f, T* y, const std::array<const T*, N>& x, const std::int64_t* steps,
                     std::int64_t n) {
    constexpr std::int64_t block = 1024;
    T gathered[N][block];
    T results[elementwise_unit];
    const T* rows[N];
    for (std::int64_t begin = 0; begin < n; begin += block) {
        const std::int64_t count = std::min(block, n - begin), whole = count / elementwise_unit * elementwise_unit;
        for (std::size_t k = 0; k < N; ++k) {
            rows[k] = steps[k] == 1 ? x[k] + begin : gathered[k];
            for (std::int64_t i = steps[k] == 1 ? whole : 0; i < count; ++i) {
                gathered[k][i] = x[k][(begin + i) * steps[k]];
            }
        }
        f(y + begin, rows, whole);
        if (whole < count) {
            for (std::size_t k = 0; k < N; ++k) {
                rows[k] = gathered[k] + whole;
                std::fill(gathered[k] + count, gathered[k] + whole + elementwise_unit, T(0));
            }
            f(results, rows, elementwise_unit);
            std::copy(results, results + (count - whole), y + begin + whole);
        }
    }
}

template <class T, std::size_t N>
void elementwise_strided(const ElementwiseFormula<T>& f, const Shape& shape, T* y, const std::array<const T*, N>& x,
                         const std::array<Strides, N>& strides) {
    std::array<Strides, N + 1> operands;
    std::copy(strides.begin(), strides.end(), operands.begin());
    operands[N] = row_major(shape);
    strided_loop<N + 1>(shape, operands, [&](const auto& offsets, const auto& steps, std::int64_t n) {
        std::array<const T*, N> from;
        for (std::size_t k = 0; k < N; ++k) {
            from[k] = x[k] + offsets[k];
        }
        elementwise_run<T, N>(f, y + offsets[N], from, steps, n);
    });
}

/// The vector loop of one formula, for the instruction set in use: all that is compiled for each formula.
template <class F, class T, std::size_t N>
void elementwise_vectors(const void* f, T* y, const T* const* x, std::int64_t n) {
    simd::run_for_isa<ElementwiseVectors<T, N>>(*static_cast<const F*>(f), y, x, n);
}

} // namespace detail

/// y = f(a), f(a, b) or f(a, b, c), element by element: operands of this shape with any strides, y row-major.
/// f is called with simd::Vec of compute_t<T>; it and all that it calls are marked LOWRANK_HD (math/macros.hpp).
template <class F, class T>
void elementwise(Cpu, const F& f, const Shape& shape, T* y, const T* a, const Strides& a_strides) {
    detail::elementwise_strided<T, 1>({detail::elementwise_vectors<F, T, 1>, &f}, shape, y, {a}, {a_strides});
}
template <class F, class T>
void elementwise(Cpu, const F& f, const Shape& shape, T* y, const T* a, const Strides& a_strides, const T* b,
                 const Strides& b_strides) {
    detail::elementwise_strided<T, 2>({detail::elementwise_vectors<F, T, 2>, &f}, shape, y, {a, b},
                                      {a_strides, b_strides});
}
template <class F, class T>
void elementwise(Cpu, const F& f, const Shape& shape, T* y, const T* a, const Strides& a_strides, const T* b,
                 const Strides& b_strides, const T* c, const Strides& c_strides) {
    detail::elementwise_strided<T, 3>({detail::elementwise_vectors<F, T, 3>, &f}, shape, y, {a, b, c},
                                      {a_strides, b_strides, c_strides});
}

} // namespace lowrank
