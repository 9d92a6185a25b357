// Cross-entropy of logits and labels, summed.
#pragma once

#include <cstdint>
#include <vector>

#include "lowrank/autograd/record.hpp"
#include "lowrank/backend/cpu/columns.hpp"
#include "lowrank/backend/cpu/cross_entropy.hpp"
#include "lowrank/core/labels.hpp"
#include "lowrank/ops/cast.hpp"
#include "lowrank/ops/views.hpp"

namespace lowrank {

namespace detail {

/// Throws OptionError, naming the op and the row, unless the label is ignored or in [0, classes).
inline void check_label(const char* op, std::size_t row, std::int32_t label, std::int64_t classes) {
    if (label != ignored_label && (label < 0 || label >= classes)) {
        throw OptionError(
            concat(op, ": label ", label, " in row ", row, ", expected 0 to ", classes - 1, " or ", ignored_label));
    }
}

/// x times the value of a scalar tensor, as T.
template <class T, class C, DeviceTag D>
Tensor<T, D> scaled_by(const Tensor<T, D>& x, const Tensor<C, D>& factor) {
    Tensor<T, D> y = Tensor<T, D>::empty(x.shape());
    scale_by(D{}, x.numel(), x.data(), factor.data(), y.mutable_data());
    return y;
}

} // namespace detail

/// The sum over rows of -log softmax(logits)[label], for logits [rows, classes] and labels [rows], where ignored_label
/// leaves a row out: torch's cross_entropy with reduction "sum". A scalar of compute_t<T>, summed in double. Throws
/// ShapeError for shapes that do not fit and OptionError for a label that is no class.
template <class T, DeviceTag D>
Tensor<compute_t<T>, D> cross_entropy(const Tensor<T, D>& logits, const Tensor<std::int32_t, D>& labels) {
    using C = compute_t<T>;
    if (logits.rank() != 2 || labels.shape() != Shape{logits.size(0)}) {
        throw ShapeError(concat("cross_entropy: expected logits [rows, classes] and labels [rows], found logits ",
                                logits.shape(), ", labels ", labels.shape()));
    }
    const std::int64_t rows = logits.size(0), classes = logits.size(1);
    const Tensor<std::int32_t, D> targets = contiguous(labels);
    const std::vector<std::int32_t> host = targets.to_vector();
    for (std::size_t i = 0; i < host.size(); ++i) {
        detail::check_label("cross_entropy", i, host[i], classes);
    }
    const Tensor<C, D> x = cast<C>(contiguous(logits).detach());
    const Edge ex = edge(logits);
    Tensor<double, D> losses = Tensor<double, D>::empty({rows});
    Tensor<C, D> gradient = ex ? Tensor<C, D>::empty(x.shape()) : Tensor<C, D>();
    cross_entropy_rows(D{}, rows, classes, x.data(), targets.data(), losses.mutable_data(),
                       ex ? gradient.mutable_data() : nullptr);
    Tensor<C, D> loss = Tensor<C, D>::empty({});
    sum_losses(D{}, rows, losses.data(), loss.mutable_data());
    return record(loss, bool(ex),
                  [ex, gradient](const Tensor<C, D>& dy) { ex.add(cast<T>(detail::scaled_by(gradient, dy))); });
}

} // namespace lowrank
