// SelfAttention: every token gathers values of the tokens before it, in several heads.
#pragma once

#include <cstdint>

#include "lowrank/nn/linear.hpp"
#include "lowrank/nn/positions.hpp"
#include "lowrank/ops/attention.hpp"
#include "lowrank/ops/rotary.hpp"

namespace lowrank {

/// Multi-head causal attention with rotary positions and, with fewer heads of keys than of queries, grouped queries
/// (Ainslie et al., 2023). The names of the linears are LLaMA's.
template <class T, DeviceTag D = Cpu>
struct SelfAttention {
    Linear<T, D> q_proj, k_proj, v_proj, o_proj;
    std::int64_t heads = 1, kv_heads = 1;
    Tensor<float, D> frequencies; ///< rotary_frequencies; undefined for no positions
    double dropout_p = 0;
    std::uint32_t site = 0;

    /// New trained layers without biases. Throws OptionError where `heads` does not divide `width` or `kv_heads` not
    /// `heads`.
    static SelfAttention random(std::int64_t width, std::int64_t heads, std::int64_t kv_heads, Rng& rng) {
        if (heads < 1 || kv_heads < 1 || width % heads != 0 || heads % kv_heads != 0) {
            throw OptionError(concat("self-attention: found width ", width, ", ", heads, " heads and ", kv_heads,
                                     " heads of keys, expected numbers that divide each other"));
        }
        const std::int64_t head_dim = width / heads;
        SelfAttention attention;
        attention.q_proj = Linear<T, D>::random(width, width, rng, false);
        attention.k_proj = Linear<T, D>::random(width, kv_heads * head_dim, rng, false);
        attention.v_proj = Linear<T, D>::random(width, kv_heads * head_dim, rng, false);
        attention.o_proj = Linear<T, D>::random(width, width, rng, false);
        attention.heads = heads;
        attention.kv_heads = kv_heads;
        attention.frequencies = rotary_frequencies<D>(head_dim / 2 * 2);
        return attention;
    }

    template <class Visit>
    void fields(Visit&& visit) {
        visit("q_proj", q_proj);
        visit("k_proj", k_proj);
        visit("v_proj", v_proj);
        visit("o_proj", o_proj);
    }

    /// [batch, length, width] for x of that shape. Packed rows attend within their documents.
    Tensor<T, D> forward(const Tensor<T, D>& x, const ForwardContext<D>& context) const {
        const std::int64_t batch = x.size(0), length = x.size(1);
        const auto split = [&](const Linear<T, D>& layer, std::int64_t count) {
            return reshape(layer.forward(x, context), {batch, length, count, layer.weight.out() / count});
        };
        Tensor<T, D> q = split(q_proj, heads), k = split(k_proj, kv_heads);
        if (frequencies.defined()) {
            const bool is_packed = context.document_start.defined(); // else one table serves all rows
            const Tensor<compute_t<T>, D> angles = rotary_table<T>(
                position_ids("self-attention", is_packed ? Shape{batch, length} : Shape{length}, {}, context),
                frequencies);
            q = rotary(q, angles);
            k = rotary(k, angles);
        }
        AttentionOptions<D> options;
        options.document_start = context.document_start;
        if (context.training && dropout_p > 0) {
            options.dropout_p = dropout_p;
            options.seed = context.seed;
            options.site = site;
        }
        return o_proj.forward(attention(q, k, split(v_proj, kv_heads), options), context);
    }
};

} // namespace lowrank
