// A matrix parameter's slot: it holds trainable values or a frozen weight, exchangeable at run time.
#pragma once

#include <concepts>
#include <memory>
#include <utility>

#include "lowrank/tensor/weight.hpp"

namespace lowrank {

/// The place of a matrix W [out, in] in a layer. C is the type of trainable values (float, or double in checks).
/// A cheap handle: copies share the weight or the values.
template <class C, DeviceTag D>
class WeightSlot {
  public:
    WeightSlot() = default;
    /// A frozen weight.
    template <class W>
    requires std::convertible_to < W*, const Weight<D>
    * > WeightSlot(std::shared_ptr<W> frozen) : frozen_(std::move(frozen)) {}
    /// Values of shape [out, in] or [in, out], by `orientation`; trained when they are a leaf of the graph.
    /// Throws ShapeError when they are no contiguous matrix.
    WeightSlot(Tensor<C, D> values, Orientation orientation) : values_(std::move(values)), orientation_(orientation) {
        if (values_.rank() != 2 || !values_.is_contiguous()) {
            throw ShapeError(concat("weight: expected a contiguous matrix, found shape ", values_.shape()));
        }
    }

    bool defined() const { return frozen_ != nullptr || values_.defined(); }
    bool is_trainable() const { return values_.defined() && values_.node() != nullptr; }
    /// The frozen weight; null when the slot holds values.
    const std::shared_ptr<const Weight<D>>& frozen() const { return frozen_; }
    /// The values; undefined when the slot holds a frozen weight.
    const Tensor<C, D>& values() const { return values_; }

    Orientation orientation() const { return frozen_ ? frozen_->orientation() : orientation_; }
    std::int64_t out() const {
        return frozen_ ? frozen_->out() : values_.size(orientation_ == Orientation::out_in ? 0 : 1);
    }
    std::int64_t in() const {
        return frozen_ ? frozen_->in() : values_.size(orientation_ == Orientation::out_in ? 1 : 0);
    }
    /// The shape as it is stored and saved.
    Shape stored_shape() const { return frozen_ ? frozen_->stored_shape() : values_.shape(); }

  private:
    std::shared_ptr<const Weight<D>> frozen_;
    Tensor<C, D> values_;
    Orientation orientation_ = Orientation::out_in;
};

/// A slot's matrix in the type of parameters, in the stored orientation and outside the graph: the values themselves,
/// or a dense copy of a frozen weight.
template <class C, DeviceTag D>
Tensor<C, D> dense_values(const WeightSlot<C, D>& slot) {
    return slot.frozen() ? slot.frozen()->template dense_copy<C>() : slot.values().detach();
}

} // namespace lowrank
