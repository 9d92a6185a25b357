// Where lines along one dimension of memory [outer, n, inner] are largest or smallest, on the host.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "lowrank/backend/cpu/lines.hpp"
#include "lowrank/simd/dispatch.hpp"
#include "lowrank/simd/memory.hpp"

namespace lowrank {
namespace detail {

/// Whether a value, or each lane of a vector, is larger, or smaller, than another. A NaN counts as beyond both.
template <class V>
LOWRANK_INLINE auto is_beyond(V value, V other, bool smallest) {
    return (smallest ? value < other : value > other) | ((value != value) & (other == other));
}

/// Where `count` neighbouring lines, at most most_lines, are largest or smallest: best[i] and the first found[i].
struct ExtremeLines {
    template <class C>
    using Index = std::conditional_t<sizeof(C) == 8, std::uint64_t, std::uint32_t>; // as wide as a lane

    template <int Width, class T>
    LOWRANK_INLINE static void run(const T* x, std::int64_t n, std::int64_t inner, std::int64_t count, bool smallest,
                                   compute_t<T>* best, Index<compute_t<T>>* found) {
        using C = compute_t<T>;
        for (std::int64_t i = 0; i < count; ++i) {
            best[i] = convert<C>(x[i]);
            found[i] = 0;
        }
        for (std::int64_t j = 1; j < n; ++j) {
            const T* row = x + j * inner;
            std::int64_t i = 0;
            if constexpr (Packable<T>) {
                using V = simd::Vec<C, Width * 4 / int(sizeof(C))>;
                using Bits = typename V::naturals;
                for (; i + V::size <= count; i += V::size) {
                    const V value = simd::load<V>(row + i), other = simd::load<V>(best + i);
                    const auto beyond = is_beyond(value, other, smallest);
                    simd::store(select(beyond, value, other), best + i);
                    Bits at;
                    __builtin_memcpy(&at, found + i, sizeof at);
                    at = (at & ~(Bits)beyond.v) | ((Bits)beyond.v & static_cast<Index<C>>(j));
                    __builtin_memcpy(found + i, &at, sizeof at);
                }
            }
            for (; i < count; ++i) {
                if (const C value = convert<C>(row[i]); is_beyond(value, best[i], smallest)) {
                    best[i] = value;
                    found[i] = static_cast<Index<C>>(j);
                }
            }
        }
    }
};

/// The same of one line of n elements, n > 0, whose pieces are walked as neighbouring lines.
template <class T>
std::int64_t extreme_of_line(const T* x, std::int64_t n, bool smallest) {
    using C = compute_t<T>;
    C best[most_lines] = {};
    ExtremeLines::Index<C> found[most_lines] = {};
    const std::int64_t lanes = std::min(n, most_lines), steps = n / lanes;
    simd::run_for_isa<ExtremeLines>(x, steps, lanes, lanes, smallest, best, found);
    C value = best[0];
    auto at = static_cast<std::int64_t>(found[0]) * lanes;
    const auto take = [&](C other, std::int64_t index) {
        if (is_beyond(other, value, smallest) || (index < at && !is_beyond(value, other, smallest))) {
            value = other;
            at = index;
        }
    };
    for (std::int64_t i = 1; i < lanes; ++i) {
        take(best[i], static_cast<std::int64_t>(found[i]) * lanes + i);
    }
    for (std::int64_t i = steps * lanes; i < n; ++i) {
        take(convert<C>(x[i]), i);
    }
    return at;
}

/// extreme_index of lines whose elements are neighbours: long ones are walked in pieces, by several threads.
template <class T>
void extremes_of_lines(std::int64_t lines, std::int64_t n, const T* x, bool smallest, std::int32_t* index) {
    using C = compute_t<T>;
    const std::int64_t pieces = (n + elementwise_grain - 1) / elementwise_grain; // of a line
    std::vector<std::int64_t> found(static_cast<std::size_t>(lines * pieces));
    const std::int64_t grain = std::max<std::int64_t>(1, elementwise_grain / n);
    parallel_chunks(lines * pieces, grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t piece = begin; piece < end; ++piece) {
            const std::int64_t first = piece % pieces * elementwise_grain,
                               count = std::min(elementwise_grain, n - first);
            found[static_cast<std::size_t>(piece)] =
                first + extreme_of_line(x + piece / pieces * n + first, count, smallest);
        }
    });
    for (std::int64_t i = 0; i < lines; ++i) {
        const T* line = x + i * n;
        const std::int64_t* of = found.data() + i * pieces;
        const std::int64_t* best = std::max_element(of, of + pieces, [&](std::int64_t a, std::int64_t b) {
            return is_beyond(convert<C>(line[b]), convert<C>(line[a]), smallest);
        });
        index[i] = static_cast<std::int32_t>(*best);
    }
}

} // namespace detail

/// index[o, i] = the first j with the largest x[o, j, i], or the smallest; a NaN counts as beyond both. n > 0.
template <class T>
void extreme_index(Cpu, std::int64_t outer, std::int64_t n, std::int64_t inner, const T* x, bool smallest,
                   std::int32_t* index) {
    using C = compute_t<T>;
    if (inner == 1) {
        detail::extremes_of_lines(outer, n, x, smallest, index);
        return;
    }
    detail::for_lines(outer, n, inner, detail::most_lines, [=](std::int64_t o, std::int64_t first, std::int64_t count) {
        C best[detail::most_lines];
        detail::ExtremeLines::Index<C> found[detail::most_lines];
        simd::run_for_isa<detail::ExtremeLines>(x + o * n * inner + first, n, inner, count, smallest, best, found);
        std::transform(found, found + count, index + o * inner + first,
                       [](auto j) { return static_cast<std::int32_t>(j); });
    });
}

} // namespace lowrank
