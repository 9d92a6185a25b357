// DoRA: LoRA on the direction of each row of a matrix, and a trained magnitude for the row.
// Liu et al., "DoRA: weight-decomposed low-rank adaptation", 2024, equation 5, with the norm a constant (section 4.3).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/adapters/lora.hpp"
#include "lowrank/ops/matmul.hpp"
#include "lowrank/ops/reduce.hpp"

namespace lowrank {

namespace detail {

/// ‖W + s·BA‖ of every row, [out], from ‖W‖² [out], WAᵀ [out, r] and the factors: BA is never formed.
template <class C, DeviceTag D>
Tensor<C, D> norms_of_sum(const Tensor<C, D>& norms_squared, const Tensor<C, D>& wa, const Tensor<C, D>& a,
                          const Tensor<C, D>& b, double scale) {
    const C s = static_cast<C>(scale);
    const Tensor<C, D> baa = matmul(b, matmul(a, transpose(a, 0, 1))); // B(AAᵀ)
    return sqrt(norms_squared + sum(b * (wa * (2 * s) + baa * (s * s)), {1}));
}

} // namespace detail

/// y = m/n ⊙ (W + s·BA)x + bias, where n [out] are the norms of the rows of W + s·BA and m [out] is trained. The norms
/// come from the factors, ‖W + sBA‖² = ‖W‖² + 2s·B·(WAᵀ) + s²·B(AAᵀ)·B row by row, so BA is never formed.
template <class T, DeviceTag D>
class Dora final : public Lora<T, D> {
  public:
    using C = compute_t<T>;

    /// As Lora, and the magnitudes m; where undefined they start as n, so that nothing changes yet.
    Dora(const WeightSlot<C, D>& weight, Tensor<C, D> a, Tensor<C, D> b, Tensor<C, D> b_bias, Tensor<C, D> magnitude,
         double scale, double dropout, std::uint32_t site, bool train_a = true)
        : Lora<T, D>(std::move(a), std::move(b), std::move(b_bias), scale, dropout, site, train_a),
          weight_norms_squared_(norms_squared(weight)) {
        magnitude_ = leaf(magnitude.defined() ? magnitude : row_norms(weight));
        if (magnitude_.shape() != Shape{weight.out()}) {
            throw ShapeError(
                concat("dora: magnitudes: found shape ", magnitude_.shape(), ", expected [", weight.out(), "]"));
        }
    }

    Tensor<T, D> forward(const Linear<T, D>& layer, const Tensor<T, D>& x, const Epilogue<T, D>& epilogue,
                         const ForwardContext<D>& context) const override {
        const Tensor<C, D> g = magnitude_ / row_norms(layer.weight);
        Epilogue<T, D> adapted = epilogue;
        adapted.bias = this->shifted_bias(epilogue.bias);
        if (!this->is_dropping(context)) {
            adapted.column_scale = g;
            return linear(x, layer.weight, adapted, {this->own_term()});
        }
        // With dropout PEFT leaves base(x) alone: y = base(x) + (g - 1)·(W xd) + g·s·B(A xd), xd = dropout(x).
        const Tensor<T, D> xd = this->dropped(x, context);
        Epilogue<T, D> inner;
        inner.column_scale = g - 1.0;
        Epilogue<T, D> outer;
        outer.bias = adapted.bias;
        outer.residual = linear(xd, layer.weight, inner);
        const Tensor<C, D> scaled_b = reshape(g, {g.numel(), 1}) * this->b_;
        return apply_rest(linear(x, layer.weight, outer, {{this->down(xd), scaled_b, this->scale_}}), epilogue);
    }

    bool low_rank_terms(const Linear<T, D>&, const Tensor<T, D>&, const ForwardContext<D>&,
                        std::vector<LowRankTerm<T, D>>&) const override {
        return false; // the base is scaled too
    }

    Tensor<C, D> merged(const Linear<T, D>& layer) const override {
        const NoGrad no_grad;
        const Tensor<C, D> g = magnitude_ / row_norms(layer.weight);
        const bool is_out_in = layer.weight.orientation() == Orientation::out_in;
        return Lora<T, D>::merged(layer) * (is_out_in ? reshape(g, {g.numel(), 1}) : g);
    }

    void parameters(const std::function<void(const std::string&, Tensor<C, D>&)>& visit) override {
        Lora<T, D>::parameters(visit);
        visit("lora_magnitude_vector", magnitude_);
    }

  private:
    /// n, outside the graph.
    Tensor<C, D> row_norms(const WeightSlot<C, D>& weight) const {
        const NoGrad no_grad;
        return detail::norms_of_sum(weight_norms_squared_, transpose(linear(this->a_, weight), 0, 1), this->a_,
                                    this->b_, this->scale_);
    }

    static Tensor<C, D> norms_squared(const WeightSlot<C, D>& weight) {
        if (!weight.frozen()) {
            throw OptionError("dora: the base weight must be frozen");
        }
        const std::vector<double> norms = weight.frozen()->row_norms_squared();
        return Tensor<C, D>::from(std::vector<C>(norms.begin(), norms.end()), {weight.out()});
    }

    Tensor<C, D> magnitude_, weight_norms_squared_;
};

} // namespace lowrank
