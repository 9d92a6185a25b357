// backward: gradients of a scalar with respect to every leaf that it was computed from.
#pragma once

#include "lowrank/autograd/record.hpp"

namespace lowrank {

/// Adds the gradients of `y`, weighted by `dy` (of y's shape), to `into`. The graph is freed on the way.
/// Throws AutogradError when y has no graph, when a part of it was freed before, or when a saved tensor was
/// overwritten.
template <class T, DeviceTag D>
void backward(const Tensor<T, D>& y, const Tensor<T, D>& dy, Gradients& into) {
    if (!y.node()) {
        throw AutogradError("backward: the value was computed from no leaf, or while NoGrad was alive");
    }
    if (dy.shape() != y.shape()) {
        throw ShapeError(concat("backward: gradient of shape ", dy.shape(), " for a value of shape ", y.shape()));
    }
    const NoGrad no_grad;
    Backward walk(into);
    walk.deliver(y.node(), dy);
    walk.run();
}

/// Adds the gradients of a scalar to `into`: k micro-batches into one `Gradients` give the gradient of their sum.
template <class T, DeviceTag D>
void backward(const Tensor<T, D>& loss, Gradients& into) {
    if (loss.numel() != 1) {
        throw ShapeError(concat("backward: the loss must have one element, found shape ", loss.shape()));
    }
    backward(loss, Tensor<T, D>::full(loss.shape(), T(1)), into);
}

/// The gradients of a scalar.
template <class T, DeviceTag D>
Gradients backward(const Tensor<T, D>& loss) {
    Gradients gradients;
    backward(loss, gradients);
    return gradients;
}

} // namespace lowrank
