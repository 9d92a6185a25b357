// LoRA on an embedding: a table plus a trained product of two thin matrices, read row by row.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "lowrank/adapters/lora.hpp"
#include "lowrank/nn/embedding.hpp"

namespace lowrank {

/// y = table[ids] + s·Aᵀ[ids]·Bᵀ, where A [r, rows] and B [width, r] are trained: PEFT's lora.Embedding, without
/// dropout as there. A head that is tied to the table keeps the table's own rows.
template <class T, DeviceTag D>
class LoraEmbedding : public EmbeddingAdapter<T, D> {
  public:
    using C = compute_t<T>;

    LoraEmbedding(Tensor<C, D> a, Tensor<C, D> b, double scale, bool train_a = true)
        : a_(train_a ? leaf(a) : a.detach()),
          b_(leaf(b)),
          scale_(scale) {
        if (a.rank() != 2 || b.rank() != 2 || a.size(0) != b.size(1)) {
            throw ShapeError(
                concat("lora: A ", a.shape(), " and B ", b.shape(), " are no factors [r, rows] and [width, r]"));
        }
    }

    Tensor<T, D> forward(const Embedding<T, D>& layer, const Tensor<std::int32_t, D>& ids,
                         const ForwardContext<D>&) const override {
        return rows<T>(layer, ids);
    }

    Tensor<C, D> merged(const Embedding<T, D>& layer) const override {
        const NoGrad no_grad;
        return plus_product(layer.weight, contiguous(transpose(a_, 0, 1)), contiguous(transpose(b_, 0, 1)), scale_);
    }

    void parameters(const std::function<void(const std::string&, Tensor<C, D>&)>& visit) override {
        visit("lora_embedding_A", a_);
        visit("lora_embedding_B", b_);
    }

    double scale() const { return scale_; }

  protected:
    /// The rows for `ids` as U, with the factors in them.
    template <class U>
    Tensor<U, D> rows(const Embedding<T, D>& layer, const Tensor<std::int32_t, D>& ids) const {
        Epilogue<U, D> epilogue;
        epilogue.residual = embedding<U>(ids, layer.weight);
        const WeightSlot<C, D> a(contiguous(transpose(a_, 0, 1)), Orientation::out_in);
        return linear(embedding<U>(ids, a), WeightSlot<C, D>(b_ * scale_, Orientation::out_in), epilogue);
    }

    Tensor<C, D> a_, b_;
    double scale_;
};

} // namespace lowrank
