// The transformer block of GPT-2: attention and MLP, each behind a layer norm and added to its input.
// Radford et al., "Language models are unsupervised multitask learners", 2019; names as in Transformers.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>

#include "lowrank/models/gpt2_config.hpp"
#include "lowrank/nn/key_value_cache.hpp"
#include "lowrank/nn/layer_norm.hpp"
#include "lowrank/nn/linear.hpp"
#include "lowrank/ops/attention.hpp"
#include "lowrank/ops/dropout.hpp"
#include "lowrank/ops/elementwise.hpp"

namespace lowrank {

/// A projection back into the residual stream: residual + dropout(linear(x)). Without dropout the sum is fused.
template <class T, DeviceTag D>
Tensor<T, D> project_to_residual(const Linear<T, D>& layer, const Tensor<T, D>& x, const Tensor<T, D>& residual,
                                 double p, std::uint32_t site, const ForwardContext<D>& context) {
    if (context.training && p > 0) {
        return residual + dropout(layer.forward(x, context), p, context.seed, site);
    }
    return layer.forward(x, context,
                         {.bias = {}, .column_scale = {}, .activation = Activation::none, .residual = residual});
}

/// Multi-head causal self-attention.
template <class T, DeviceTag D>
struct Gpt2Attention {
    Linear<T, D> c_attn, c_proj;
    std::int64_t heads = 1;
    double scale = 1, attn_pdrop = 0, resid_pdrop = 0;
    std::uint32_t attn_site = 0, resid_site = 0;

    template <class Visit>
    void fields(Visit&& visit) {
        visit("c_attn", c_attn);
        visit("c_proj", c_proj);
    }

    /// residual + projection of the attention over x [batch, length, width]; both of that shape.
    Tensor<T, D> forward(const Tensor<T, D>& x, const Tensor<T, D>& residual, const ForwardContext<D>& context,
                         RowCaches<T, D> caches = {}) const {
        const Tensor<T, D> qkv = c_attn.forward(x, context);
        AttentionOptions<D> options;
        options.scale = scale;
        options.document_start = context.document_start;
        if (context.training && attn_pdrop > 0) {
            options.dropout_p = attn_pdrop;
            options.seed = context.seed;
            options.site = attn_site;
        }
        Tensor<T, D> mixed;
        if (caches.empty()) {
            mixed = fused_attention(qkv, heads, heads, options);
        } else {
            const std::int64_t batch = x.size(0), length = x.size(1), width = x.size(2);
            const auto part = [&](std::int64_t index) {
                return reshape(slice(qkv, 2, index * width, (index + 1) * width),
                               {batch, length, heads, width / heads});
            };
            mixed = cached_attention(part(0), part(1), part(2), caches, options);
        }
        return project_to_residual(c_proj, mixed, residual, resid_pdrop, resid_site, context);
    }
};

/// Two linears with an activation between them.
template <class T, DeviceTag D>
struct Gpt2Mlp {
    Linear<T, D> c_fc, c_proj;
    Activation activation = Activation::gelu_tanh;
    double resid_pdrop = 0;
    std::uint32_t resid_site = 0;

    template <class Visit>
    void fields(Visit&& visit) {
        visit("c_fc", c_fc);
        visit("c_proj", c_proj);
    }

    Tensor<T, D> forward(const Tensor<T, D>& x, const Tensor<T, D>& residual, const ForwardContext<D>& context) const {
        const Tensor<T, D> hidden =
            c_fc.forward(x, context, {.bias = {}, .column_scale = {}, .activation = activation, .residual = {}});
        return project_to_residual(c_proj, hidden, residual, resid_pdrop, resid_site, context);
    }
};

/// x + attention(ln_1(x)), then + mlp(ln_2(·)).
template <class T, DeviceTag D>
struct Gpt2Block {
    LayerNorm<T, D> ln_1;
    Gpt2Attention<T, D> attn;
    LayerNorm<T, D> ln_2;
    Gpt2Mlp<T, D> mlp;

    template <class Visit>
    void fields(Visit&& visit) {
        visit("ln_1", ln_1);
        visit("attn", attn);
        visit("ln_2", ln_2);
        visit("mlp", mlp);
    }

    Tensor<T, D> forward(const Tensor<T, D>& x, const ForwardContext<D>& context, RowCaches<T, D> caches = {}) const {
        const Tensor<T, D> h = attn.forward(ln_1.forward(x), x, context, caches);
        return mlp.forward(ln_2.forward(h), h, context);
    }
};

} // namespace lowrank
