// LoRA: a linear layer plus a trained product of two thin matrices.
// Hu et al., "LoRA: low-rank adaptation of large language models", 2021; rsLoRA is a scaling of α/√r instead of α/r
// (Kalajdzievski, "A rank stabilization scaling factor for fine-tuning with LoRA", 2023).
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/nn/linear.hpp"
#include "lowrank/ops/dropout.hpp"
#include "lowrank/ops/elementwise.hpp"

namespace lowrank {

/// The factor s on BA: α/r, or α/√r for rsLoRA.
inline double lora_scale(double alpha, std::int64_t r, bool use_rslora) {
    return alpha / (use_rslora ? std::sqrt(static_cast<double>(r)) : static_cast<double>(r));
}

/// W + s·BA as a new matrix in the orientation of W, for A [r, in] and B [out, r], both contiguous.
template <class C, DeviceTag D>
Tensor<C, D> plus_product(const WeightSlot<C, D>& weight, const Tensor<C, D>& b_values, const Tensor<C, D>& a_values,
                          double scale) {
    const Tensor<C, D> base = dense_values(weight);
    const std::int64_t r = a_values.size(0), in = a_values.size(1), out = b_values.size(0);
    const MatrixView<C> a = matrix(a_values.data(), in), b = matrix(b_values.data(), r);
    const bool is_out_in = weight.orientation() == Orientation::out_in;
    const auto s = static_cast<C>(scale);
    const MatmulSegment<C, D> segment =
        is_out_in ? MatmulSegment<C, D>{b, {a}, r, s} : MatmulSegment<C, D>{a.transposed(), {b.transposed()}, r, s};
    Tensor<C, D> sum = Tensor<C, D>::empty(base.shape());
    MatmulEpilogue<C> epilogue;
    epilogue.residual = base.data();
    matmul(D{}, is_out_in ? out : in, is_out_in ? in : out, std::span<const MatmulSegment<C, D>>(&segment, 1),
           sum.mutable_data(), epilogue);
    return sum;
}

/// y = base(x) + s·B(A(dropout(x))), where A [r, in] and B [out, r] are trained. The base is any weight. In LoRA-FA A
/// is not trained (Zhang et al., "LoRA-FA: memory-efficient low-rank adaptation", 2023).
template <class T, DeviceTag D>
class Lora : public LinearAdapter<T, D> {
  public:
    using C = compute_t<T>;

    /// `b_bias` [out] may be undefined. `site` numbers the random stream of the dropout.
    Lora(Tensor<C, D> a, Tensor<C, D> b, Tensor<C, D> b_bias, double scale, double dropout, std::uint32_t site,
         bool train_a = true)
        : a_(train_a ? leaf(a) : a.detach()),
          b_(leaf(b)),
          b_bias_(b_bias.defined() ? leaf(b_bias) : b_bias),
          scale_(scale),
          dropout_(dropout),
          site_(site) {
        if (a.rank() != 2 || b.rank() != 2 || a.size(0) != b.size(1)) {
            throw ShapeError(
                concat("lora: A ", a.shape(), " and B ", b.shape(), " are no factors [r, in] and [out, r]"));
        }
    }

    Tensor<T, D> forward(const Linear<T, D>& layer, const Tensor<T, D>& x, const Epilogue<T, D>& epilogue,
                         const ForwardContext<D>& context) const override {
        Epilogue<T, D> adapted = epilogue;
        adapted.bias = shifted_bias(epilogue.bias);
        return linear(x, layer.weight, adapted, {is_dropping(context) ? term(x, context) : own_term()});
    }

    bool low_rank_terms(const Linear<T, D>&, const Tensor<T, D>& x, const ForwardContext<D>& context,
                        std::vector<LowRankTerm<T, D>>& terms) const override {
        if (b_bias_.defined()) {
            return false;
        }
        terms.push_back(term(x, context));
        return true;
    }

    Tensor<C, D> merged(const Linear<T, D>& layer) const override {
        const NoGrad no_grad;
        return plus_product(layer.weight, b_, factor_a(), scale_);
    }

    Tensor<C, D> merged_bias(const Linear<T, D>& layer) const override {
        const NoGrad no_grad;
        return shifted_bias(layer.bias);
    }

    void parameters(const std::function<void(const std::string&, Tensor<C, D>&)>& visit) override {
        visit("lora_A.weight", a_);
        visit("lora_B.weight", b_);
        if (b_bias_.defined()) {
            visit("lora_B.bias", b_bias_);
        }
    }

    std::int64_t r() const { return a_.size(0); }
    double scale() const { return scale_; }
    double dropout_probability() const { return dropout_; }

  protected:
    /// x with dropout, in training.
    Tensor<T, D> dropped(const Tensor<T, D>& x, const ForwardContext<D>& context) const {
        return is_dropping(context) ? dropout(x, dropout_, context.seed, site_) : x;
    }
    bool is_dropping(const ForwardContext<D>& context) const { return context.training && dropout_ > 0; }

    LowRankTerm<T, D> term(const Tensor<T, D>& x, const ForwardContext<D>& context) const {
        return {down(dropped(x, context)), b_, scale_};
    }

    /// The same without dropout, as part of one operation with the base.
    LowRankTerm<T, D> own_term() const { return {{}, b_, scale_, factor_a()}; }

    /// A, or what stands in its place.
    virtual Tensor<C, D> factor_a() const { return a_; }

    /// t = x·Aᵀ.
    Tensor<T, D> down(const Tensor<T, D>& x) const {
        return linear(x, WeightSlot<C, D>(factor_a(), Orientation::out_in));
    }

    /// The base's bias plus s times that of B.
    Tensor<C, D> shifted_bias(const Tensor<C, D>& bias) const {
        if (!b_bias_.defined()) {
            return bias;
        }
        const Tensor<C, D> own = b_bias_ * scale_;
        return bias.defined() ? bias + own : own;
    }

    Tensor<C, D> a_, b_, b_bias_;
    double scale_;
    double dropout_;
    std::uint32_t site_;
};

} // namespace lowrank
