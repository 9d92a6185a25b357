// Cross-entropy on the host: the losses of rows of logits, their gradient, or both in one visit.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "lowrank/backend/cpu/rows.hpp"
#include "lowrank/core/device.hpp"
#include "lowrank/core/labels.hpp"

namespace lowrank {
namespace detail {

/// The loss of a row whose label is in [0, n), and its gradient times `scale` in dx (null: none), which may begin where
/// x does.
struct CrossEntropyRow {
    template <int Width, class T, class S, class G>
    [[gnu::always_inline]] static inline double run(std::int64_t n, const T* x, std::int32_t label, S scale, G* dx) {
        using V = RowVector<S, Width>;
        const auto normalizer = RowNormalizer<S>::template of<Width>(n, x);
        const double target = static_cast<double>(static_cast<S>(x[label])) - static_cast<double>(normalizer.maximum);
        if (dx != nullptr) {
            const double factor = static_cast<double>(scale) / normalizer.sum;
            row_map<V>(n, RowScaledExponential<T, S, G>{{x, normalizer.maximum}, static_cast<S>(factor), dx});
            dx[label] = static_cast<G>(static_cast<S>(factor * std::exp(target) - static_cast<double>(scale)));
        }
        return std::log(normalizer.sum) - target;
    }
};

} // namespace detail

/// losses[i] = -log softmax(logits[i, :])[labels[i]] for logits [rows, n], and 0 for an ignored label. Where `gradient`
/// is not null it receives softmax - onehot, or 0 for an ignored label, in rows `gradient_row` apart; each may begin
/// where that of the logits does, as G is no larger than T.
template <class T, class G>
void cross_entropy_rows(Cpu, std::int64_t rows, std::int64_t n, const T* logits, const std::int32_t* labels,
                        double* losses, G* gradient, std::int64_t gradient_row) {
    static_assert(sizeof(G) <= sizeof(T));
    using S = compute_t<T>;
    for_rows(rows, n, [=](std::int64_t i) {
        G* dx = gradient ? gradient + i * gradient_row : nullptr;
        if (labels[i] != ignored_label) {
            losses[i] = simd::run_for_isa<detail::CrossEntropyRow>(n, logits + i * n, labels[i], S(1), dx);
        } else {
            losses[i] = 0;
            std::fill_n(dx, dx ? n : 0, G(0.0f));
        }
    });
}

/// The gradient alone, times *dy: (softmax - onehot) · *dy, or 0 for an ignored label.
template <class T>
void cross_entropy_backward(Cpu, std::int64_t rows, std::int64_t n, const T* logits, const std::int32_t* labels,
                            const compute_t<T>* dy, T* gradient) {
    for_rows(rows, n, [=](std::int64_t i) {
        T* dx = gradient + i * n;
        if (labels[i] != ignored_label) {
            simd::run_for_isa<detail::CrossEntropyRow>(n, logits + i * n, labels[i], *dy, dx);
        } else {
            std::fill_n(dx, n, T(0.0f));
        }
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
