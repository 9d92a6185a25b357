// Merging adapters into the matrices they adapt, and taking the merge back.
#pragma once

#include <cmath>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/nn/linear.hpp"

namespace lowrank {

/// What a merge replaced. `unmerge` brings the old weights, the same objects, and the adapters back.
template <class T, DeviceTag D>
class MergedAdapters {
  public:
    std::size_t size() const { return replaced_.size(); }

    void keep(Linear<T, D>& layer) { replaced_.push_back({&layer, layer.weight, layer.bias, layer.adapter}); }

    /// Undoes the merge, bit for bit. The model must not have moved.
    void unmerge() {
        for (Replaced& r : replaced_) {
            r.layer->weight = r.weight;
            r.layer->bias = r.bias;
            r.layer->adapter = r.adapter;
        }
        replaced_.clear();
    }

  private:
    struct Replaced {
        Linear<T, D>* layer;
        WeightSlot<compute_t<T>, D> weight;
        Tensor<compute_t<T>, D> bias;
        std::shared_ptr<LinearAdapter<T, D>> adapter;
    };
    std::vector<Replaced> replaced_;
};

/// Merges every adapter of a model: each adapted layer gets a new dense weight in the type of parameters, with the
/// adapter in it, and loses the adapter. The old weights are not written to. Throws NumericError, naming the layer and
/// changing nothing, when a merged weight is not finite.
template <class T, DeviceTag D, Module M>
MergedAdapters<T, D> merge(M& model) {
    using C = compute_t<T>;
    struct Merge {
        Linear<T, D>* layer;
        Tensor<C, D> weight, bias;
    };
    std::vector<Merge> merges;
    for_each<Linear<T, D>>(model, [&](const std::string& path, Linear<T, D>& layer) {
        if (!layer.adapter) {
            return;
        }
        merges.push_back({&layer, layer.adapter->merged(layer), layer.adapter->merged_bias(layer)});
        for (const C value : merges.back().weight.to_vector()) {
            if (!std::isfinite(value)) {
                throw NumericError(concat(path, ": the merged weight has a value that is not finite"));
            }
        }
    });
    MergedAdapters<T, D> undo;
    for (Merge& m : merges) {
        undo.keep(*m.layer);
        m.layer->weight = std::make_shared<DenseWeight<C, D>>(m.weight, m.layer->weight.orientation());
        m.layer->bias = m.bias;
        m.layer->adapter = nullptr;
    }
    return undo;
}

} // namespace lowrank
