// IA3: a trained factor for each output of a layer, or for each input of a feed-forward layer.
// Liu et al., "Few-shot parameter-efficient fine-tuning is better and cheaper than in-context learning", 2022.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "lowrank/adapters/ia3_config.hpp"
#include "lowrank/adapters/stored_values.hpp"
#include "lowrank/ops/cast.hpp"
#include "lowrank/ops/elementwise.hpp"
#include "lowrank/ops/views.hpp"

namespace lowrank {

/// y = l ⊙ base(x), the bias included, with l [out, 1] trained; or y = base(l ⊙ x), with l [1, in]. The base is any
/// weight.
template <class T, DeviceTag D>
class Ia3 final : public LinearAdapter<T, D> {
  public:
    using C = compute_t<T>;

    explicit Ia3(Tensor<C, D> factors) : factors_(leaf(factors)), scales_input_(factors.size(0) == 1) {}

    Tensor<T, D> forward(const Linear<T, D>& layer, const Tensor<T, D>& x, const Epilogue<T, D>& epilogue,
                         const ForwardContext<D>&) const override {
        if (scales_input_) {
            return linear(cast<T>(cast<C>(x) * flat()), layer.weight, epilogue);
        }
        Epilogue<T, D> scaled = epilogue;
        scaled.column_scale = flat();
        scaled.bias = epilogue.bias.defined() ? epilogue.bias * flat() : epilogue.bias;
        return linear(x, layer.weight, scaled);
    }

    Tensor<C, D> merged(const Linear<T, D>& layer) const override {
        const NoGrad no_grad;
        const bool is_out_in = layer.weight.orientation() == Orientation::out_in;
        return dense_values(layer.weight) * (is_out_in ? factors_ : transpose(factors_, 0, 1));
    }

    Tensor<C, D> merged_bias(const Linear<T, D>& layer) const override {
        const NoGrad no_grad;
        return scales_input_ || !layer.bias.defined() ? layer.bias : layer.bias * flat();
    }

    void parameters(const std::function<void(const std::string&, Tensor<C, D>&)>& visit) override {
        visit("ia3_l", factors_);
    }

  private:
    Tensor<C, D> flat() const { return reshape(factors_, {factors_.numel()}); }

    Tensor<C, D> factors_;
    bool scales_input_;
};

/// IA3's adapter of a linear layer.
template <class T, DeviceTag D>
std::shared_ptr<LinearAdapter<T, D>>
make_adapter(const Ia3Config& config, const std::string& path, const Linear<T, D>& layer, Rng& rng,
             const StoredValues<compute_t<T>, D>& values, const SharedTensors<compute_t<T>, D>&) {
    using C = compute_t<T>;
    const Shape shape = is_feedforward(config, path) ? Shape{1, layer.weight.in()} : Shape{layer.weight.out(), 1};
    return std::make_shared<Ia3<T, D>>(detail::stored_or(values, "ia3_l", shape, [&] {
        return config.init_ia3_weights ? Tensor<C, D>::full(shape, C(1))
                                       : detail::drawn<C, D>(shape, [&] { return rng.normal(); });
    }));
}

} // namespace lowrank
