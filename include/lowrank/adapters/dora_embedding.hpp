// DoRA on an embedding: LoRA on the direction of each column of a table, and a trained magnitude for the column.
// Liu et al., "DoRA: weight-decomposed low-rank adaptation", 2024; PEFT's DoraEmbeddingLayer.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/adapters/dora.hpp"
#include "lowrank/adapters/lora_embedding.hpp"
#include "lowrank/ops/cast.hpp"

namespace lowrank {

/// y = m/n ⊙ (table[ids] + s·Aᵀ[ids]·Bᵀ), where n [width] are the norms of the columns of table + s·AᵀBᵀ, constants in
/// the gradient, and m [width] is trained. Rows that are not looked up are not computed: a column's norm comes from the
/// factors, ‖table‖² + 2s·B·(A·table)ᵀ + s²·B(AAᵀ)·B, which reads the table once.
template <class T, DeviceTag D>
class DoraEmbedding final : public LoraEmbedding<T, D> {
  public:
    using C = compute_t<T>;

    /// As LoraEmbedding, and the magnitudes m; where undefined they start as n, so that nothing changes yet. Throws
    /// OptionError for a table that is trained, ShapeError for factors and magnitudes that do not fit it.
    DoraEmbedding(const WeightSlot<C, D>& table, Tensor<C, D> a, Tensor<C, D> b, Tensor<C, D> magnitude, double scale,
                  bool train_a = true)
        : LoraEmbedding<T, D>(std::move(a), std::move(b), scale, train_a),
          table_norms_squared_(norms_squared(table)) {
        if (this->a_.size(1) != table.out() || this->b_.size(0) != table.in()) {
            throw ShapeError(concat("dora: A ", this->a_.shape(), " and B ", this->b_.shape(),
                                    " do not fit a table [rows, width] = [", table.out(), ", ", table.in(), "]"));
        }
        magnitude_ = leaf(magnitude.defined() ? magnitude : column_norms(table));
        if (magnitude_.shape() != Shape{table.in()}) {
            throw ShapeError(
                concat("dora: magnitudes: found shape ", magnitude_.shape(), ", expected [", table.in(), "]"));
        }
    }

    /// In bf16 the rows are rounded once, when they are scaled.
    Tensor<T, D> forward(const Embedding<T, D>& layer, const Tensor<std::int32_t, D>& ids,
                         const ForwardContext<D>&) const override {
        return cast<T>(this->template rows<C>(layer, ids) * (magnitude_ / column_norms(layer.weight)));
    }

    Tensor<C, D> merged(const Embedding<T, D>& layer) const override {
        const NoGrad no_grad;
        return LoraEmbedding<T, D>::merged(layer) * (magnitude_ / column_norms(layer.weight));
    }

    void parameters(const std::function<void(const std::string&, Tensor<C, D>&)>& visit) override {
        LoraEmbedding<T, D>::parameters(visit);
        visit("lora_magnitude_vector", magnitude_);
    }

  private:
    /// n, outside the graph. The table is the transpose of a matrix W [width, rows].
    Tensor<C, D> column_norms(const WeightSlot<C, D>& table) const {
        const NoGrad no_grad;
        const std::int64_t rows = table.out(), width = table.in(), r = this->a_.size(0);
        const Tensor<C, D> a = contiguous(this->a_);
        const Tensor<C, D> aw = detail::product<C, C, D>(
            r, width, {{matrix(a.data(), rows), MatrixOperand<C, D>(table, true), rows}}, {r, width});
        return detail::norms_of_sum(table_norms_squared_, transpose(aw, 0, 1), a, this->b_, this->scale_);
    }

    static Tensor<C, D> norms_squared(const WeightSlot<C, D>& table) {
        if (!table.frozen()) {
            throw OptionError("dora: the embedding's table must be frozen");
        }
        const std::vector<double> norms = table.frozen()->column_norms_squared();
        return Tensor<C, D>::from(std::vector<C>(norms.begin(), norms.end()), {table.in()});
    }

    Tensor<C, D> magnitude_, table_norms_squared_;
};

} // namespace lowrank
