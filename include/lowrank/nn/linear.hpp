// Linear: a matrix, a bias, and the hook that an adapter fills.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/nn/context.hpp"
#include "lowrank/nn/initialize.hpp"
#include "lowrank/nn/module.hpp"
#include "lowrank/ops/linear.hpp"

namespace lowrank {

template <class T, DeviceTag D = Cpu>
struct Linear;

/// What an adapter of a linear layer does. It sees the layer, whose weight may be dense or quantized, trained or not,
/// and receives the layer's epilogue, so that an adapted layer stays one fused operation.
template <class T, DeviceTag D>
class LinearAdapter {
  public:
    using C = compute_t<T>;
    virtual ~LinearAdapter() = default;

    /// The adapted layer's result for x [..., in]. `epilogue` already holds the layer's bias.
    virtual Tensor<T, D> forward(const Linear<T, D>& layer, const Tensor<T, D>& x, const Epilogue<T, D>& epilogue,
                                 const ForwardContext<D>& context) const = 0;

    /// W' such that the layer with W' alone computes what the adapted layer computes (without dropout): a new matrix in
    /// the layer's stored orientation.
    virtual Tensor<C, D> merged(const Linear<T, D>& layer) const = 0;

    /// The bias that goes with it: the layer's own, unless the adapter has a part in it.
    virtual Tensor<C, D> merged_bias(const Linear<T, D>& layer) const { return layer.bias; }

    /// Calls `visit(name, tensor)` for every tensor of its own that an adapter's file holds, under its name there
    /// ("lora_A.weight"). Those that are leaves of the graph are trained, the others are constants.
    virtual void parameters(const std::function<void(const std::string&, Tensor<C, D>&)>& visit) = 0;

    /// The same for tensors that the adapters of several layers share and a file holds once, under their full key.
    virtual void shared_tensors(const std::function<void(const std::string&, Tensor<C, D>&)>&) {}

    /// An adapter that only adds low-rank terms to x·Wᵀ appends them and returns true, so that several adapters stay
    /// one fused operation. By default it appends nothing and returns false: only `forward` can say what it does.
    virtual bool low_rank_terms(const Linear<T, D>&, const Tensor<T, D>&, const ForwardContext<D>&,
                                std::vector<LowRankTerm<T, D>>&) const {
        return false;
    }
};

/// y = x·Wᵀ + bias, adapted where an adapter is attached. `weight` in either orientation (Conv1D or torch's Linear).
template <class T, DeviceTag D>
struct Linear {
    WeightSlot<compute_t<T>, D> weight;
    Tensor<compute_t<T>, D> bias; ///< [out], or undefined
    std::shared_ptr<LinearAdapter<T, D>> adapter;

    /// A new trained layer, W [out, in] and bias evenly from ±1/√in, as torch.nn.Linear starts.
    static Linear random(std::int64_t in, std::int64_t out, Rng& rng, bool with_bias = true) {
        using C = compute_t<T>;
        const double bound = 1 / std::sqrt(static_cast<double>(std::max<std::int64_t>(in, 1)));
        Linear layer;
        layer.weight = WeightSlot<C, D>(uniform_parameter<C, D>({out, in}, bound, rng), Orientation::out_in);
        if (with_bias) {
            layer.bias = uniform_parameter<C, D>({out}, bound, rng);
        }
        return layer;
    }

    template <class Visit>
    void fields(Visit&& visit) {
        visit("weight", weight);
        visit("bias", bias);
    }

    /// The result for x [..., in], with what `epilogue` adds after the bias.
    Tensor<T, D> forward(const Tensor<T, D>& x, const ForwardContext<D>& context, Epilogue<T, D> epilogue = {}) const {
        epilogue.bias = bias;
        return adapter ? adapter->forward(*this, x, epilogue, context) : linear(x, weight, epilogue);
    }
};

} // namespace lowrank
