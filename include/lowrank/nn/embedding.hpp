// Embedding: rows of a matrix, by index.
#pragma once

#include <cstdint>

#include "lowrank/nn/initialize.hpp"
#include "lowrank/nn/module.hpp"
#include "lowrank/ops/embedding.hpp"

namespace lowrank {

/// A table [rows, width], as torch's Embedding. Its slot may be shared with a tied head.
template <class T, DeviceTag D = Cpu>
struct Embedding {
    WeightSlot<compute_t<T>, D> weight;

    /// A new trained table of normal values; torch.nn.Embedding starts with deviation 1.
    static Embedding random(std::int64_t rows, std::int64_t width, Rng& rng, double deviation = 1) {
        return {{normal_parameter<compute_t<T>, D>({rows, width}, deviation, rng), Orientation::out_in}};
    }

    template <class Visit>
    void fields(Visit&& visit) {
        visit("weight", weight);
    }

    /// The rows for `ids` [..], of shape [.., width]. Throws where an id is no row.
    Tensor<T, D> forward(const Tensor<std::int32_t, D>& ids) const { return embedding<T>(ids, weight); }
};

} // namespace lowrank
