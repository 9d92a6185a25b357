// Several adapters on one embedding: by name, one or several of them active, or each row of a batch with its own.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lowrank/adapters/named_adapters.hpp"
#include "lowrank/nn/embedding.hpp"

namespace lowrank {

/// What NamedAdapters is for linear layers.
template <class T, DeviceTag D>
class NamedEmbeddingAdapters final : public EmbeddingAdapter<T, D>, public NamedEntries<EmbeddingAdapter<T, D>> {
  public:
    using C = compute_t<T>;
    using Adapter = EmbeddingAdapter<T, D>;
    using Entries = NamedEntries<Adapter>;
    using Entries::Entries;

    Tensor<T, D> forward(const Embedding<T, D>& layer, const Tensor<std::int32_t, D>& ids,
                         const ForwardContext<D>& context) const override {
        if (!context.adapter_names) {
            return this->summed(embedding<T>(ids, layer.weight),
                                [&](const Adapter& adapter) { return adapter.forward(layer, ids, context); });
        }
        ForwardContext<D> inner = context;
        inner.adapter_names = nullptr;
        std::vector<Tensor<T, D>> parts;
        std::vector<std::int32_t> order;
        for (const auto& group : this->rows_by_adapter(*context.adapter_names, ids.rank() > 1 ? ids.size(0) : 0)) {
            const Tensor<std::int32_t, D> own = index_select(ids, 0, detail::index_of<D>(group.rows));
            parts.push_back(group.adapter ? group.adapter->forward(layer, own, inner)
                                          : embedding<T>(own, layer.weight));
            order.insert(order.end(), group.rows.begin(), group.rows.end());
        }
        return detail::in_order(parts, order);
    }

    Tensor<C, D> merged(const Embedding<T, D>& layer) const override {
        const NoGrad no_grad;
        return this->summed(dense_values(layer.weight), [&](const Adapter& adapter) { return adapter.merged(layer); });
    }

    /// Those of the active adapters, as "<adapter>.lora_embedding_A".
    void parameters(const std::function<void(const std::string&, Tensor<C, D>&)>& visit) override {
        Entries::parameters(visit);
    }
};

} // namespace lowrank
