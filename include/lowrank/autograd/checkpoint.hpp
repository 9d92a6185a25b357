// Checkpointing: a function that keeps only its inputs and is computed again during backward.
// Chen et al., "Training deep nets with sublinear memory cost", 2016.
#pragma once

#include "lowrank/autograd/backward.hpp"

namespace lowrank {

/// y = f(x) without what backward needs inside f: f runs again then. f may use parameters, whose gradients arrive as
/// usual. It must be a pure function of x and of what it captured (dropout is: its mask comes from a seed).
template <class T, DeviceTag D, class Function>
Tensor<T, D> checkpoint(const Function& f, const Tensor<T, D>& x) {
    if (!is_recording()) {
        return f(x);
    }
    Tensor<T, D> y = [&] {
        const NoGrad no_grad;
        return f(x.detach());
    }();
    // Parameters inside f want gradients even when x wants none (a frozen embedding), so the node is always recorded.
    return record(y, true, [f, ex = edge(x), sx = save(x)](const Tensor<T, D>& dy) {
        const Tensor<T, D> input = ex ? leaf(sx.get()) : sx.get();
        const Tensor<T, D> again = [&] {
            const RecordingScope record(true);
            return f(input);
        }();
        if (!again.node()) {
            return; // nothing in f wants a gradient
        }
        Gradients& outer = Backward::current()->gradients();
        backward(again, dy, outer);
        if (ex) {
            if (const Tensor<T, D>* dx = outer.find(input)) {
                ex.add(*dx);
            }
            outer.remove(input);
        }
    });
}

} // namespace lowrank
