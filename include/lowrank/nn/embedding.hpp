// Embedding: rows of a matrix, by index.
#pragma once

#include <cstdint>

#include "lowrank/nn/module.hpp"
#include "lowrank/ops/embedding.hpp"

namespace lowrank {

/// A table [rows, width], as torch's Embedding. Its slot may be shared with a tied head.
template <class T, DeviceTag D>
struct Embedding {
    WeightSlot<compute_t<T>, D> weight;

    template <class Visit>
    void fields(Visit&& visit) {
        visit("weight", weight);
    }

    /// The rows for `ids` [..], of shape [.., width]. Throws where an id is no row.
    Tensor<T, D> forward(const Tensor<std::int32_t, D>& ids) const { return embedding<T>(ids, weight); }
};

} // namespace lowrank
