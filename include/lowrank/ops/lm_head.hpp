// The language-model head: its logits, and fused with its loss, in chunks of rows, so that logits of
// tokens × vocabulary never exist.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "lowrank/autograd/record.hpp"
#include "lowrank/backend/cpu/columns.hpp"
#include "lowrank/backend/cpu/cross_entropy.hpp"
#include "lowrank/backend/cpu/matmul.hpp"
#include "lowrank/ops/cast.hpp"
#include "lowrank/ops/cross_entropy.hpp"
#include "lowrank/ops/linear.hpp"
#include "lowrank/ops/views.hpp"

namespace lowrank {

namespace detail {

/// How many of `count` rows of logits are computed together with activations of type T: as many as fill 64 MiB, or 50
/// where activations take 16 bits, which bounds the memory, and each chunk as many as the others, because each reads
/// the whole matrix.
template <class T>
std::int64_t lm_head_rows(std::int64_t count, std::int64_t vocabulary) {
    constexpr std::int64_t bytes = std::int64_t(sizeof(T) == 2 ? 50 : 64) << 20;
    const std::int64_t fit = bytes / std::max<std::int64_t>(1, vocabulary * std::int64_t(sizeof(compute_t<T>)));
    const std::int64_t most = std::clamp<std::int64_t>(fit, 16, 1024), chunks = (count + most - 1) / most;
    return chunks == 0 ? 0 : (count + chunks - 1) / chunks;
}

/// Returns what a device keeps for reuse: blocks of the layers are of no use to a large chunk of logits, nor are its
/// blocks to them, and both together would be the most memory that a step takes.
template <DeviceTag D>
void empty_cache(bool is_large) {
    if constexpr (requires { D::empty_cache(); }) {
        if (is_large) {
            D::empty_cache();
        }
    }
}

} // namespace detail

/// x·Wᵀ [..., vocabulary] as numbers of compute_t<T>, for x [..., width] and W [vocabulary, width]: logits as exact as
/// those in lm_head_loss, for in bf16 numbers near -100 lie half a unit apart. Throws ShapeError where they do not fit.
template <class T, DeviceTag D>
Tensor<compute_t<T>, D> lm_head_logits(const Tensor<T, D>& input, const WeightSlot<compute_t<T>, D>& weight) {
    using C = compute_t<T>;
    const std::int64_t width = weight.in(), vocabulary = weight.out();
    if (input.rank() < 1 || input.size(-1) != width) {
        throw ShapeError(concat("lm_head_logits: expected x [..., ", width, "], found ", input.shape()));
    }
    const Tensor<T, D> x = contiguous(input);
    const Edge ex = edge(x);
    const Edge ew = edge(weight.values());
    Shape shape = x.shape();
    shape[shape.rank() - 1] = vocabulary;
    const std::int64_t rows = numel(shape) / vocabulary;
    const Tensor<C, D> y = detail::product<C, T, D>(
        rows, vocabulary, {{matrix(x.data(), width), MatrixOperand<T, D>(weight, false), width}}, shape);
    return record(y, ex || ew,
                  [=, sx = save_if(ew, x), sw = save_if(ex, weight.values())](const Tensor<C, D>& upstream) {
                      const Tensor<T, D> dy = cast<T>(contiguous(upstream));
                      const MatrixView<T> dlogits = matrix(dy.data(), vocabulary);
                      if (ex) {
                          sw.get();
                          Shape x_shape = dy.shape();
                          x_shape[x_shape.rank() - 1] = width;
                          detail::add_product<T, D>(
                              ex, rows, width, {{dlogits, MatrixOperand<T, D>(weight, true), vocabulary}}, x_shape);
                      }
                      if (ew) {
                          const Tensor<T, D> kept = sx.get();
                          ew.add(detail::weight_gradient(weight, rows, dlogits, matrix(kept.data(), width)));
                      }
                  });
}

/// The sum over supervised rows of -log softmax(x·Wᵀ)[label], for x [rows, width], W [vocabulary, width] and labels
/// [rows], where `ignored_label` leaves a row out: no logits are computed for it. A scalar of compute_t<T>. The
/// gradients are computed in the same pass, chunk by chunk, and those of a frozen W not at all.
/// Throws ShapeError for shapes that do not fit and OptionError for a label outside the vocabulary.
template <class T, DeviceTag D>
Tensor<compute_t<T>, D> lm_head_loss(const Tensor<T, D>& input, const WeightSlot<compute_t<T>, D>& weight,
                                     const Tensor<std::int32_t, D>& labels) {
    using C = compute_t<T>;
    if (input.rank() != 2 || input.size(1) != weight.in() || labels.shape() != Shape{input.size(0)}) {
        throw ShapeError(concat("lm_head_loss: expected x [rows, ", weight.in(), "] and labels [rows], found x ",
                                input.shape(), ", labels ", labels.shape()));
    }
    const std::int64_t width = weight.in(), vocabulary = weight.out();
    const Tensor<T, D> x = contiguous(input);
    const std::vector<std::int32_t> host_labels = labels.to_vector();
    std::vector<std::int32_t> supervised, targets;
    for (std::size_t i = 0; i < host_labels.size(); ++i) {
        if (host_labels[i] != ignored_label) {
            detail::check_label("lm_head_loss", i, host_labels[i], vocabulary);
            supervised.push_back(static_cast<std::int32_t>(i));
            targets.push_back(host_labels[i]);
        }
    }
    const auto count = static_cast<std::int64_t>(supervised.size());
    const Tensor<std::int32_t, D> index = Tensor<std::int32_t, D>::from(supervised, {count});
    const Tensor<std::int32_t, D> target = Tensor<std::int32_t, D>::from(targets, {count});

    const Edge ex = edge(x);
    const Edge ew = edge(weight.values());
    Tensor<T, D> dx;
    Tensor<C, D> dw;
    if (ex) {
        dx = Tensor<T, D>::zeros(x.shape());
    }
    if (ew) {
        dw = Tensor<C, D>::zeros(weight.stored_shape());
    }
    const std::int64_t chunk = detail::lm_head_rows<T>(count, vocabulary);
    const bool is_large = chunk * vocabulary * std::int64_t(sizeof(C)) > std::int64_t(32) << 20;
    Tensor<double, D> losses = Tensor<double, D>::zeros({count});
    detail::empty_cache<D>(is_large);
    {
        Tensor<T, D> rows = Tensor<T, D>::empty({chunk, width});
        Tensor<C, D> logits = Tensor<C, D>::empty({chunk, vocabulary}), drows = Tensor<C, D>::empty({chunk, width});
        using Segment = MatmulSegment<T, D>;
        const auto multiply = [](std::int64_t m, std::int64_t n, const Segment& segment, C* out, bool accumulate) {
            MatmulEpilogue<T, C> epilogue;
            epilogue.accumulate = accumulate;
            matmul(D{}, m, n, std::span(&segment, 1), out, epilogue);
        };
        for (std::int64_t begin = 0; begin < count; begin += chunk) {
            const std::int64_t n = std::min(chunk, count - begin);
            gather_rows(D{}, n, width, index.data() + begin, x.data(), rows.mutable_data());
            const MatrixView<T> row_view = matrix(rows.data(), width);
            multiply(n, vocabulary, {row_view, {weight, false}, width}, logits.mutable_data(), false);
            // From here on the memory of the logits holds their gradient, each row where that of the logits began.
            C* values = logits.mutable_data();
            T* gradient = reinterpret_cast<T*>(values);
            const std::int64_t gradient_row = vocabulary * std::int64_t(sizeof(C) / sizeof(T));
            cross_entropy_rows(D{}, n, vocabulary, static_cast<const C*>(values), target.data() + begin,
                               losses.mutable_data() + begin, ex || ew ? gradient : nullptr, gradient_row);
            const MatrixView<T> dlogits = matrix(static_cast<const T*>(gradient), gradient_row);
            if (ex) {
                multiply(n, width, {dlogits, {weight, true}, vocabulary}, drows.mutable_data(), false);
                scatter_rows(D{}, n, width, index.data() + begin, drows.data(), dx.mutable_data());
            }
            if (ew && weight.orientation() == Orientation::out_in) {
                multiply(vocabulary, width, {dlogits.transposed(), {row_view}, n}, dw.mutable_data(), true);
            } else if (ew) {
                multiply(width, vocabulary, {row_view.transposed(), {dlogits}, n}, dw.mutable_data(), true);
            }
        }
    }
    detail::empty_cache<D>(is_large);
    Tensor<C, D> loss = Tensor<C, D>::empty({});
    sum_losses(D{}, count, losses.data(), loss.mutable_data());
    return record(loss, ex || ew, [ex, ew, dx, dw](const Tensor<C, D>& dy) {
        if (ex) {
            ex.add(detail::scaled_by(dx, dy));
        }
        if (ew) {
            ew.add(detail::scaled_by(dw, dy));
        }
    });
}

} // namespace lowrank
