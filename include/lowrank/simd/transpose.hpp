// Transposing a square block in registers: N vectors of N lanes.
#pragma once

#include <utility>

#include "lowrank/simd/vec.hpp"

namespace lowrank::simd {
namespace detail {

// Exchanges the upper half of a with the lower half of b in every group of 2·Step lanes.
template <int Step, class S, int N, int... Lanes>
LOWRANK_INLINE void exchange_halves(Vec<S, N>& a, Vec<S, N>& b, std::integer_sequence<int, Lanes...>) {
    using Raw = typename Vec<S, N>::Raw;
    const Vec<S, N> low = Raw{__builtin_shufflevector(a.v, b.v, ((Lanes & Step) == 0 ? Lanes : N + Lanes - Step)...)};
    b = Raw{__builtin_shufflevector(a.v, b.v, ((Lanes & Step) == 0 ? Lanes + Step : N + Lanes)...)};
    a = low;
}

template <int Step, class S, int N>
LOWRANK_INLINE void transpose_from(Vec<S, N> (&rows)[N]) {
    if constexpr (Step > 0) {
#pragma GCC unroll 16
        for (int i = 0; i < N; ++i) {
            if ((i & Step) == 0) {
                exchange_halves<Step>(rows[i], rows[i + Step], std::make_integer_sequence<int, N>());
            }
        }
        transpose_from<Step / 2>(rows);
    }
}

} // namespace detail

/// Lane j of row i becomes lane i of row j: blocks of half the size are exchanged, then those in them.
template <class S, int N>
LOWRANK_INLINE void transpose(Vec<S, N> (&rows)[N]) {
    detail::transpose_from<N / 2>(rows);
}

} // namespace lowrank::simd
