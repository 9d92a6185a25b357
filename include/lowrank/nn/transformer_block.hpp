// TransformerBlock: attention and MLP, each behind a norm and added to its input.
#pragma once

#include "lowrank/nn/mlp.hpp"
#include "lowrank/nn/rms_norm.hpp"
#include "lowrank/nn/self_attention.hpp"
#include "lowrank/ops/elementwise.hpp"

namespace lowrank {

/// A block of a decoder: h = x + attention(norm(x)), then h + mlp(norm(h)).
template <class T, DeviceTag D = Cpu>
struct TransformerBlock {
    RmsNorm<T, D> attention_norm;
    SelfAttention<T, D> attention;
    RmsNorm<T, D> mlp_norm;
    Mlp<T, D> mlp;

    /// New trained layers; the MLP is four times as wide. Throws as SelfAttention::random.
    static TransformerBlock random(std::int64_t width, std::int64_t heads, Rng& rng) {
        SelfAttention<T, D> attention = SelfAttention<T, D>::random(width, heads, heads, rng);
        return {RmsNorm<T, D>::ones(width), attention, RmsNorm<T, D>::ones(width),
                Mlp<T, D>::random(width, 4 * width, width, rng)};
    }

    template <class Visit>
    void fields(Visit&& visit) {
        visit("attention_norm", attention_norm);
        visit("attention", attention);
        visit("mlp_norm", mlp_norm);
        visit("mlp", mlp);
    }

    /// [batch, length, width] for x of that shape.
    Tensor<T, D> forward(const Tensor<T, D>& x, const ForwardContext<D>& context) const {
        const Tensor<T, D> h = x + attention.forward(attention_norm.forward(x), context);
        return h + mlp.forward(mlp_norm.forward(h), context);
    }
};

} // namespace lowrank
