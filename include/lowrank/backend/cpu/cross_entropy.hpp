// Cross-entropy on the host: the loss of each row and the gradient with respect to its logits, in one visit.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "lowrank/backend/cpu/arithmetic.hpp"
#include "lowrank/core/labels.hpp"
#include "lowrank/core/parallel.hpp"
#include "lowrank/simd/dispatch.hpp"
#include "lowrank/simd/functions.hpp"
#include "lowrank/simd/memory.hpp"

namespace lowrank {
namespace detail {

/// One row: returns logsumexp(x) - x[label] and, where `dx` is not null (it may be x), writes softmax(x) - onehot.
struct CrossEntropyRow {
    template <int Width, class C>
    LOWRANK_INLINE static double run(std::int64_t n, const C* x, std::int32_t label, C* dx) {
        using V = simd::Vec<C, Width * 4 / static_cast<int>(sizeof(C))>;
        constexpr C lowest = -std::numeric_limits<C>::infinity();
        const std::int64_t whole = n / V::size * V::size;
        const auto rest = static_cast<std::size_t>(n - whole);
        V high = simd::load<V>(x + whole, rest, lowest);
        for (std::int64_t j = 0; j < whole; j += V::size) {
            high = max(simd::load<V>(x + j), high); // a NaN in x is kept
        }
        C top = high[0];
        for (int lane = 1; lane < V::size; ++lane) {
            top = high[lane] > top || high[lane] != high[lane] ? high[lane] : top;
        }
        double sum = 0;
        constexpr std::int64_t block = 1024; // lanes sum in C within a block, blocks in double
        for (std::int64_t begin = 0; begin < whole; begin += block) {
            const std::int64_t end = begin + block < whole ? begin + block : whole;
            V part(C(0));
            for (std::int64_t j = begin; j < end; j += V::size) {
                part += exp(simd::load<V>(x + j) - V(top));
            }
            sum += static_cast<double>(reduce_add(part));
        }
        sum += static_cast<double>(reduce_add(exp(simd::load<V>(x + whole, rest, lowest) - V(top))));
        const double logsumexp = static_cast<double>(top) + std::log(sum);
        const double loss = logsumexp - static_cast<double>(x[label]);
        if (dx != nullptr) {
            const auto factor = static_cast<C>(1 / sum);
            for (std::int64_t j = 0; j < whole; j += V::size) {
                simd::store(exp(simd::load<V>(x + j) - V(top)) * V(factor), dx + j);
            }
            simd::store(exp(simd::load<V>(x + whole, rest, lowest) - V(top)) * V(factor), dx + whole, rest);
            dx[label] -= C(1);
        }
        return loss;
    }
};

} // namespace detail

/// losses[i] = -log softmax(logits[i, :])[labels[i]] for logits [rows, n], and 0 for an ignored label. Where `gradient`
/// is not null it receives softmax - onehot, or 0 for an ignored label; it may be the memory of the logits themselves.
template <class C>
void cross_entropy_rows(Cpu, std::int64_t rows, std::int64_t n, const C* logits, const std::int32_t* labels,
                        double* losses, C* gradient) {
    parallel_for(rows, [=](std::int64_t i) {
        C* dx = gradient ? gradient + i * n : nullptr;
        if (labels[i] == ignored_label) {
            losses[i] = 0;
            if (dx) {
                std::fill(dx, dx + n, C(0));
            }
            return;
        }
        losses[i] = simd::run_for_isa<detail::CrossEntropyRow>(n, logits + i * n, labels[i], dx);
    });
}

/// total[0] = the sum of the losses, in their order.
template <class C>
void sum_losses(Cpu, std::int64_t count, const double* losses, C* total) {
    double sum = 0;
    for (std::int64_t i = 0; i < count; ++i) {
        sum += losses[i];
    }
    *total = static_cast<C>(sum);
}

} // namespace lowrank
