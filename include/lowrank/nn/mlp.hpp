// Mlp: two linears with an activation between them, which is fused into the first.
#pragma once

#include "lowrank/nn/linear.hpp"

namespace lowrank {

/// y = fc2(activation(fc1(x))).
template <class T, DeviceTag D = Cpu>
struct Mlp {
    Linear<T, D> fc1, fc2;
    Activation activation = Activation::gelu_tanh;

    /// New trained layers, as Linear::random.
    static Mlp random(std::int64_t in, std::int64_t hidden, std::int64_t out, Rng& rng,
                      Activation activation = Activation::gelu_tanh) {
        Linear<T, D> fc1 = Linear<T, D>::random(in, hidden, rng);
        return {fc1, Linear<T, D>::random(hidden, out, rng), activation};
    }

    template <class Visit>
    void fields(Visit&& visit) {
        visit("fc1", fc1);
        visit("fc2", fc2);
    }

    /// [..., out] for x [..., in].
    Tensor<T, D> forward(const Tensor<T, D>& x, const ForwardContext<D>& context) const {
        Epilogue<T, D> activated;
        activated.activation = activation;
        return fc2.forward(fc1.forward(x, context, activated), context);
    }
};

} // namespace lowrank
