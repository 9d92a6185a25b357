// LoRA that starts away from zero and changes nothing at first: what it starts as is taken off again.
#pragma once

#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/adapters/lora.hpp"
#include "lowrank/adapters/lora_start.hpp"

namespace lowrank {

/// y = base(x) + s·B(A(dropout(x))) − s·B₀(A₀x). PiSSA and OLoRA change the base to W − sB₀A₀; here the base stays what
/// it is, dense or quantized, and the difference is a constant low-rank term beside that of the trained factors.
template <class T, DeviceTag D>
class ShiftedLora final : public LinearAdapter<T, D> {
  public:
    using C = compute_t<T>;

    /// `lora` adds low-rank terms; `start` are the factors that it begins with, `scale` their s. They are copied, for
    /// `lora` may train them where they lie.
    ShiftedLora(std::shared_ptr<LinearAdapter<T, D>> lora, const LoraStart<C, D>& start, double scale)
        : lora_(std::move(lora)),
          start_{detail::clone(start.a), detail::clone(start.b)},
          scale_(scale) {}

    Tensor<T, D> forward(const Linear<T, D>& layer, const Tensor<T, D>& x, const Epilogue<T, D>& epilogue,
                         const ForwardContext<D>& context) const override {
        std::vector<LowRankTerm<T, D>> terms;
        low_rank_terms(layer, x, context, terms);
        return linear(x, layer.weight, epilogue, std::move(terms));
    }

    bool low_rank_terms(const Linear<T, D>& layer, const Tensor<T, D>& x, const ForwardContext<D>& context,
                        std::vector<LowRankTerm<T, D>>& terms) const override {
        if (!lora_->low_rank_terms(layer, x, context, terms)) {
            throw OptionError("pissa and olora need an adapter that is a plain product BA: no DoRA, no lora_bias");
        }
        terms.push_back({linear(x, WeightSlot<C, D>(start_.a, Orientation::out_in)), start_.b, -scale_});
        return true;
    }

    Tensor<C, D> merged(const Linear<T, D>& layer) const override {
        const NoGrad no_grad;
        const Tensor<C, D> shift = matmul(start_.b * scale_, start_.a);
        return lora_->merged(layer) - (layer.weight.orientation() == Orientation::out_in ? shift : transpose(shift));
    }

    void parameters(const std::function<void(const std::string&, Tensor<C, D>&)>& visit) override {
        lora_->parameters(visit);
    }

    /// The same as plain LoRA of twice the rank: A' = [A; A₀], B' = [B, −B₀], with the same s.
    std::shared_ptr<LinearAdapter<T, D>> plain() const {
        Tensor<C, D> a, b;
        lora_->parameters([&](const std::string& name, const Tensor<C, D>& values) {
            (name == "lora_A.weight" ? a : b) = values.detach();
        });
        return std::make_shared<Lora<T, D>>(lowrank::concat({a, start_.a}, 0), lowrank::concat({b, start_.b * -1.0}, 1),
                                            Tensor<C, D>(), scale_, 0.0, 0);
    }

  private:
    std::shared_ptr<LinearAdapter<T, D>> lora_;
    LoraStart<C, D> start_;
    double scale_;
};

/// While it lives, a model's shifted adapters are plain LoRA of twice the rank, as they are saved.
template <class T, DeviceTag D>
class PlainLoraScope {
  public:
    template <Module M>
    explicit PlainLoraScope(M& model) {
        for_each<Linear<T, D>>(model, [&](const std::string&, Linear<T, D>& layer) {
            if (const auto* shifted = dynamic_cast<const ShiftedLora<T, D>*>(layer.adapter.get())) {
                const auto plain = shifted->plain();
                replaced_.emplace_back(&layer, std::exchange(layer.adapter, plain));
            }
        });
    }
    PlainLoraScope(const PlainLoraScope&) = delete;
    PlainLoraScope& operator=(const PlainLoraScope&) = delete;
    ~PlainLoraScope() {
        for (auto& [layer, adapter] : replaced_) {
            layer->adapter = adapter;
        }
    }

    bool empty() const { return replaced_.empty(); }

  private:
    std::vector<std::pair<Linear<T, D>*, std::shared_ptr<LinearAdapter<T, D>>>> replaced_;
};

} // namespace lowrank
