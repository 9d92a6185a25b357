// What a matrix product is, on any device: views, factors, parts of the inner dimension, and the epilogue.
#pragma once

#include <cstdint>

#include "lowrank/tensor/weight_slot.hpp"

namespace lowrank {

/// A matrix in memory: element (row, column) lies at data[row · row_stride + column · column_stride].
template <class T>
struct MatrixView {
    const T* data = nullptr;
    std::int64_t row_stride = 0, column_stride = 0;

    MatrixView() = default;
    MatrixView(const T* data, std::int64_t row_stride, std::int64_t column_stride)
        : data(data),
          row_stride(row_stride),
          column_stride(column_stride) {}

    MatrixView transposed() const { return {data, column_stride, row_stride}; }
};

/// A row-major matrix with this many columns.
template <class T>
MatrixView<T> matrix(const T* data, std::int64_t columns) {
    return {data, columns, 1};
}

/// The right factor B [k, n] of a product with activations T: values of type T, parameters of type compute_t<T>, or a
/// weight W [out, in], which stands for B = Wᵀ (as in y = x·Wᵀ) or, `transposed`, for B = W (as in dx = dy·W).
template <class T, DeviceTag D>
struct MatrixOperand {
    using C = compute_t<T>;

    MatrixView<T> values;
    MatrixView<C> parameters;
    const Weight<D>* weight = nullptr;
    bool transposed = false;

    MatrixOperand() = default;
    MatrixOperand(MatrixView<T> view) : values(view) {}
    MatrixOperand(MatrixView<C> view) requires(!std::same_as<T, C>) : parameters(view) {}
    MatrixOperand(const WeightSlot<C, D>& slot, bool transposed) : weight(slot.frozen().get()), transposed(transposed) {
        if (weight == nullptr) {
            *this = MatrixOperand(stored(slot.values().data(), slot, transposed));
        } else if (const void* numbers = weight->dense_values(dtype_of<T>)) { // nothing to decode
            *this = MatrixOperand(stored(static_cast<const T*>(numbers), slot, transposed));
        }
    }

  private:
    template <class S>
    static MatrixView<S> stored(const S* numbers, const WeightSlot<C, D>& slot, bool transposed) {
        const bool is_out_in = slot.orientation() == Orientation::out_in;
        const MatrixView<S> view = matrix(numbers, is_out_in ? slot.in() : slot.out());
        return is_out_in == transposed ? view : view.transposed();
    }
};

/// One part of a product's inner dimension: scale · A [m, k] · B [k, n]. Several parts are summed as if concatenated
/// along k; so the low-rank factor of an adapted layer is r more rows of k.
template <class T, DeviceTag D>
struct MatmulSegment {
    MatrixView<T> a;
    MatrixOperand<T, D> b;
    std::int64_t k = 0;
    compute_t<T> scale = 1;
};

/// The functions that a fused linear can apply to its result.
enum class Activation { none, relu, gelu_tanh, gelu_erf };

/// What happens to the product u before it is stored: y = activation(u ⊙ column_scale + bias) + residual; and with
/// `accumulate` y is added to what is there. Null pointers leave a part out. `unscaled` and `pre_activation` receive
/// what the gradient rules of the scale and of the activation need. Matrices are row-major with n columns.
template <class T, class Out = T>
struct MatmulEpilogue {
    using C = compute_t<T>;
    const C* column_scale = nullptr;          ///< [n]
    const C* bias = nullptr;                  ///< [n]
    Activation activation = Activation::none; ///< applied to u ⊙ column_scale + bias
    const Out* residual = nullptr;            ///< [m, n]
    Out* unscaled = nullptr;                  ///< [m, n]: u
    Out* pre_activation = nullptr;            ///< [m, n]: u ⊙ column_scale + bias
    bool accumulate = false;

    /// Whether y is u itself: then the product can be summed up in parts.
    bool is_plain() const {
        return column_scale == nullptr && bias == nullptr && activation == Activation::none && residual == nullptr &&
               unscaled == nullptr && pre_activation == nullptr;
    }
};

} // namespace lowrank
