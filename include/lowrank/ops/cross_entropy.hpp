// Cross-entropy of logits and labels, summed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "lowrank/autograd/record.hpp"
#include "lowrank/backend/cpu/columns.hpp"
#include "lowrank/backend/cpu/cross_entropy.hpp"
#include "lowrank/core/labels.hpp"
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

/// How many labels are supervised, not `ignored_label`: what a summed loss is divided by (unless it is 0).
template <DeviceTag D>
std::int64_t count_supervised(const Tensor<std::int32_t, D>& labels) {
    const std::vector<std::int32_t> host = contiguous(labels).to_vector();
    return static_cast<std::int64_t>(host.size()) - std::count(host.begin(), host.end(), ignored_label);
}

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
    const Tensor<T, D> x = contiguous(logits);
    Tensor<double, D> losses = Tensor<double, D>::empty({rows});
    cross_entropy_rows(D{}, rows, classes, x.data(), targets.data(), losses.mutable_data(), static_cast<T*>(nullptr),
                       classes);
    Tensor<C, D> loss = Tensor<C, D>::empty({});
    sum_losses(D{}, rows, losses.data(), loss.mutable_data());
    const Edge ex = edge(x);
    return record(loss, bool(ex), [=, sx = save_if(ex, x), st = save_if(ex, targets)](const Tensor<C, D>& dy) {
        Tensor<T, D> dx = Tensor<T, D>::empty({rows, classes});
        cross_entropy_backward(D{}, rows, classes, sx.get().data(), st.get().data(), dy.data(), dx.mutable_data());
        ex.add(dx);
    });
}

} // namespace lowrank
