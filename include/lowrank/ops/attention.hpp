// Attention: softmax(scale · q·kᵀ)·v per head, causal, within documents, with dropout, in memory linear in the length.
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>

#include "lowrank/autograd/record.hpp"
#include "lowrank/backend/cpu/attention.hpp"
#include "lowrank/ops/dropout.hpp"
#include "lowrank/ops/views.hpp"

namespace lowrank {

/// What an attention does beside its product.
template <DeviceTag D>
struct AttentionOptions {
    /// Of the scores; 1/√head_dim when empty.
    std::optional<double> scale;
    /// A query sees no position after its own. The queries are the last positions: query i of `length` has position
    /// length_kv − length + i.
    bool causal = true;
    /// For packed rows, [batch, length]: the first position that each query sees. Only when causal.
    Tensor<std::int32_t, D> document_start;
    /// Probabilities that are dropped, as dropout() does: `seed` and `site` as there.
    double dropout_p = 0;
    Tensor<std::int64_t, D> seed;
    std::uint32_t site = 0;
};

namespace detail {

/// An attention after its checks: what forward and backward call their kernels with.
template <class T, DeviceTag D>
struct AttentionCall {
    using C = compute_t<T>;
    AttentionSizes sizes;
    AttentionRule rule;
    AttentionLayout q_layout, k_layout, v_layout;
    Saved<T, D> q, k, v;
    Saved<std::int32_t, D> document_start;
    Saved<std::int64_t, D> seed;

    static AttentionLayout layout_of(const Tensor<T, D>& x) { return {x.strides()[0], x.strides()[1], x.strides()[2]}; }
    template <class U>
    static const U* pointer(const Saved<U, D>& saved) {
        return saved.get().defined() ? saved.get().data() : nullptr;
    }

    /// Throws ShapeError and OptionError as attention says. The last stride of q, k and v is 1.
    AttentionCall(const char* op, const Tensor<T, D>& q_, const Tensor<T, D>& k_, const Tensor<T, D>& v_,
                  const AttentionOptions<D>& options)
        : sizes{q_.size(0), q_.size(1), k_.size(1), q_.size(2), k_.size(2), q_.size(3)},
          q_layout(layout_of(q_)),
          k_layout(layout_of(k_)),
          v_layout(layout_of(v_)),
          q(q_),
          k(k_),
          v(v_),
          document_start(options.document_start),
          seed(options.seed) {
        const auto fail = [&](const char* what) {
            throw ShapeError(concat(op, ": ", what, ": q ", q_.shape(), ", k ", k_.shape(), ", v ", v_.shape()));
        };
        if (v_.shape() != k_.shape() || k_.size(0) != sizes.batch || k_.size(3) != sizes.head_dim) {
            fail("expected q [batch, length, heads, head_dim] and k, v [batch, length_kv, kv_heads, head_dim]");
        }
        if (sizes.heads < 1 || sizes.kv_heads < 1 || sizes.head_dim < 1 || sizes.heads % sizes.kv_heads != 0) {
            fail("the heads of q are no multiple of those of k");
        }
        if (options.causal ? sizes.length_kv < sizes.length : sizes.length_kv < 1 && sizes.length > 0) {
            fail("fewer keys than queries");
        }
        if (const auto& start = options.document_start; start.defined()) {
            if (!options.causal) {
                throw OptionError(concat(op, ": document_start is given, but causal is false"));
            }
            if (start.shape() != Shape{sizes.batch, sizes.length} || !start.is_contiguous()) {
                throw ShapeError(concat(op, ": document_start: expected a contiguous [", sizes.batch, ", ",
                                        sizes.length, "], found ", start.shape()));
            }
        }
        check_dropout(op, options.dropout_p, options.seed);
        rule = {options.scale.value_or(1.0 / std::sqrt(static_cast<double>(sizes.head_dim))), options.causal,
                options.dropout_p, options.site};
    }

    Tensor<T, D> new_output() const {
        return Tensor<T, D>::empty({sizes.batch, sizes.length, sizes.heads * sizes.head_dim});
    }
    Tensor<C, D> new_logsumexp() const { return Tensor<C, D>::empty({sizes.batch, sizes.heads, sizes.length}); }

    void forward(Tensor<T, D>& y, Tensor<C, D>& logsumexp) const {
        attention_forward(D{}, sizes, q.get().data(), q_layout, k.get().data(), k_layout, v.get().data(), v_layout,
                          pointer(document_start), rule, pointer(seed), y.mutable_data(), logsumexp.mutable_data());
    }

    void backward(const Tensor<T, D>& y, const Tensor<C, D>& logsumexp, const Tensor<T, D>& dy, T* dq,
                  const AttentionLayout& dq_layout, T* dk, const AttentionLayout& dk_layout, T* dv,
                  const AttentionLayout& dv_layout) const {
        attention_backward(D{}, sizes, q.get().data(), q_layout, k.get().data(), k_layout, v.get().data(), v_layout,
                           pointer(document_start), rule, pointer(seed), y.data(), logsumexp.data(),
                           contiguous(dy).data(), dq, dq_layout, dk, dk_layout, dv, dv_layout);
    }
};

/// A tensor of rank 4 whose last dimension is dense, as the kernels read it.
template <class T, DeviceTag D>
Tensor<T, D> attention_input(const char* op, const char* name, const Tensor<T, D>& x) {
    if (x.rank() != 4) {
        throw ShapeError(concat(op, ": ", name, ": expected [batch, length, heads, head_dim], found ", x.shape()));
    }
    return x.strides()[3] == 1 || x.size(3) == 1 ? x : contiguous(x);
}

} // namespace detail

/// y = softmax(scale · q·kᵀ)·v for each head: q [batch, length, heads, head_dim] and k, v [batch, length_kv, kv_heads,
/// head_dim] give y [batch, length, heads · head_dim]. Query head h reads key head h / (heads / kv_heads). Views whose
/// last dimension is dense are read in place. Only y and one number per query and head are kept for backward.
/// Throws ShapeError for shapes that do not fit, OptionError for a dropout_p outside [0, 1) or a document_start without
/// causal. A document_start outside 0 … the query's position counts as the nearer end.
template <class T, DeviceTag D>
Tensor<T, D> attention(const Tensor<T, D>& query, const Tensor<T, D>& key, const Tensor<T, D>& value,
                       const AttentionOptions<D>& options = {}) {
    const Tensor<T, D> q = detail::attention_input("attention", "q", query);
    const Tensor<T, D> k = detail::attention_input("attention", "k", key);
    const Tensor<T, D> v = detail::attention_input("attention", "v", value);
    const detail::AttentionCall<T, D> call("attention", q, k, v, options);
    Tensor<T, D> y = call.new_output();
    auto logsumexp = call.new_logsumexp();
    call.forward(y, logsumexp);
    const Edge<T, D> eq = edge(q), ek = edge(k), ev = edge(v);
    return record(
        y, eq || ek || ev,
        [call, eq, ek, ev, sy = save(y), logsumexp, from = q.shape(), from_kv = k.shape()](const Tensor<T, D>& dy) {
            using Call = detail::AttentionCall<T, D>;
            Tensor<T, D> dq = Tensor<T, D>::empty(from);
            Tensor<T, D> dk = Tensor<T, D>::empty(from_kv), dv = Tensor<T, D>::empty(from_kv);
            call.backward(sy.get(), logsumexp, dy, eq ? dq.mutable_data() : nullptr, Call::layout_of(dq),
                          ek ? dk.mutable_data() : nullptr, Call::layout_of(dk), ev ? dv.mutable_data() : nullptr,
                          Call::layout_of(dv));
            if (eq) {
                eq.add(dq);
            }
            if (ek) {
                ek.add(dk);
            }
            if (ev) {
                ev.add(dv);
            }
        });
}

/// The same for q, k and v side by side in one tensor [batch, length, (heads + 2 · kv_heads) · head_dim], as GPT-2's
/// c_attn gives them; its gradient is one tensor too, and nothing is copied.
template <class T, DeviceTag D>
Tensor<T, D> fused_attention(const Tensor<T, D>& input, std::int64_t heads, std::int64_t kv_heads,
                             const AttentionOptions<D>& options = {}) {
    const Tensor<T, D> qkv = contiguous(input);
    const std::int64_t all_heads = heads + 2 * kv_heads;
    if (qkv.rank() != 3 || heads < 1 || kv_heads < 1 || qkv.size(2) % all_heads != 0) {
        throw ShapeError(concat("fused_attention: expected [batch, length, a multiple of ", all_heads, "] for ", heads,
                                " heads and ", kv_heads, " key-value heads, found ", qkv.shape()));
    }
    const std::int64_t batch = qkv.size(0), length = qkv.size(1), width = qkv.size(2), dim = width / all_heads;
    const auto part = [&](std::int64_t first, std::int64_t count) {
        return qkv.as_strided({batch, length, count, dim}, {length * width, width, dim, 1}, first * dim);
    };
    const detail::AttentionCall<T, D> call("fused_attention", part(0, heads), part(heads, kv_heads),
                                           part(heads + kv_heads, kv_heads), options);
    Tensor<T, D> y = call.new_output();
    auto logsumexp = call.new_logsumexp();
    call.forward(y, logsumexp);
    const Edge<T, D> ex = edge(qkv);
    return record(y, bool(ex), [call, ex, sy = save(y), logsumexp, from = qkv.shape()](const Tensor<T, D>& dy) {
        Tensor<T, D> dx = Tensor<T, D>::empty(from);
        T* dq = dx.mutable_data();
        T* dk = dq + call.sizes.heads * call.sizes.head_dim;
        T* dv = dk + call.sizes.kv_heads * call.sizes.head_dim;
        call.backward(sy.get(), logsumexp, dy, dq, call.q_layout, dk, call.k_layout, dv, call.v_layout);
        ex.add(dx);
    });
}

/// Which probabilities an attention with these options keeps, as 1 and 0, [batch, heads, length, length_kv]: what
/// another implementation needs to reproduce the dropout.
template <class T>
Tensor<T, Cpu> attention_dropout_mask(std::int64_t batch, std::int64_t heads, std::int64_t length,
                                      std::int64_t length_kv, double p, std::int64_t seed, std::uint32_t site) {
    const AttentionSizes sizes{batch, length, length_kv, heads, heads, 1};
    const DropoutRule rule{static_cast<std::uint64_t>(seed), site, p};
    Tensor<T, Cpu> mask = Tensor<T, Cpu>::empty({batch, heads, length, length_kv});
    T* next = mask.mutable_data();
    for (std::int64_t row = 0; row < batch * heads; ++row) {
        for (std::int64_t i = 0; i < length; ++i) {
            for (std::int64_t j = 0; j < length_kv; ++j) {
                *next++ = T(rule.keeps(attention_dropout_word(rule.seed, site, sizes, row, i, j)) ? 1 : 0);
            }
        }
    }
    return mask;
}

} // namespace lowrank
