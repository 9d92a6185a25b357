// A new adapter on a model from several of its own, by PEFT's add_weighted_adapter.
#pragma once

#include <concepts>
#include <map>
#include <string>
#include <vector>

#include "lowrank/adapters/adapter_set.hpp"
#include "lowrank/adapters/layer_change.hpp"

namespace lowrank {

/// Adds to a set the adapter `name`, which combines others by their weights: plain LoRA with α = r, layer by layer as
/// `combine`; a layer that only some of them adapt is combined from these. Its rank is that of most layers, with
/// patterns for the others. Throws OptionError as `combine`, naming the layer, and for names as the set does; then
/// nothing has changed.
template <class T, DeviceTag D, Module M>
void add_weighted_adapter(AdapterSet<T, D, M>& set, const std::vector<std::string>& names,
                          const std::vector<double>& weights, const std::string& name, const CombineOptions& options) {
    using C = compute_t<T>;
    validate(options, names.size(), weights);
    struct Sources {
        std::vector<LayerChange<C, D>> changes;
        std::vector<double> weights;
    };
    std::map<std::string, Sources> linears, embeddings;
    for (std::size_t k = 0; k < names.size(); ++k) {
        set.for_each_adapter(names[k], [&]<class Layer>(const std::string& path, Layer& layer, auto& adapter) {
            Sources& sources = (std::same_as<Layer, Linear<T, D>> ? linears : embeddings)[path];
            sources.changes.push_back(factors_of(layer, adapter));
            sources.weights.push_back(weights[k]);
        });
    }
    LayerChanges<C, D> combined;
    for (const auto& [path, sources] : linears) {
        combined.linears.emplace(path, combine(sources.changes, sources.weights, options, path));
    }
    for (const auto& [path, sources] : embeddings) {
        combined.embeddings.emplace(path, combine(sources.changes, sources.weights, options, path));
    }
    const AdaptersWithConfig<T, D> plain = plain_lora<T, D>(combined, set.config(names[0]));
    set.add(name, plain.config, plain.adapters);
}

} // namespace lowrank
