// Embedding: rows of a matrix, by index, and the hook that an adapter fills.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "lowrank/nn/context.hpp"
#include "lowrank/nn/initialize.hpp"
#include "lowrank/nn/module.hpp"
#include "lowrank/ops/embedding.hpp"

namespace lowrank {

template <class T, DeviceTag D = Cpu>
struct Embedding;

/// What an adapter of an embedding does; see LinearAdapter. A head that is tied to the table is not adapted.
template <class T, DeviceTag D>
class EmbeddingAdapter {
  public:
    using C = compute_t<T>;
    virtual ~EmbeddingAdapter() = default;

    /// The adapted rows for `ids`.
    virtual Tensor<T, D> forward(const Embedding<T, D>& layer, const Tensor<std::int32_t, D>& ids,
                                 const ForwardContext<D>& context) const = 0;

    /// The table [rows, width] that alone gives the adapted rows.
    virtual Tensor<C, D> merged(const Embedding<T, D>& layer) const = 0;

    /// Calls `visit(name, tensor)` for every tensor that an adapter's file holds, under its name there.
    virtual void parameters(const std::function<void(const std::string&, Tensor<C, D>&)>& visit) = 0;
};

/// A table [rows, width], as torch's Embedding. Its slot may be shared with a tied head.
template <class T, DeviceTag D>
struct Embedding {
    WeightSlot<compute_t<T>, D> weight;
    std::shared_ptr<EmbeddingAdapter<T, D>> adapter;

    /// A new trained table of normal values; torch.nn.Embedding starts with deviation 1.
    static Embedding random(std::int64_t rows, std::int64_t width, Rng& rng, double deviation = 1) {
        return {{normal_parameter<compute_t<T>, D>({rows, width}, deviation, rng), Orientation::out_in}, nullptr};
    }

    template <class Visit>
    void fields(Visit&& visit) {
        visit("weight", weight);
    }

    /// The rows for `ids` [..], of shape [.., width]. Throws where an id is no row.
    Tensor<T, D> forward(const Tensor<std::int32_t, D>& ids, const ForwardContext<D>& context = {}) const {
        return adapter ? adapter->forward(*this, ids, context) : embedding<T>(ids, weight);
    }
};

} // namespace lowrank
