// What a forward pass knows beside its input: whether it trains, the seed of its dropout, where documents begin,
// adapters.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lowrank/tensor/tensor.hpp"

namespace lowrank {

/// Handed through every module's forward. The default is inference.
template <DeviceTag D>
struct ForwardContext {
    bool training = false;
    /// The seed of this step's dropout, a scalar on the device; undefined where nothing drops out.
    Tensor<std::int64_t, D> seed;
    /// For packed rows, [batch, length]: the first position of the document that each token belongs to.
    Tensor<std::int32_t, D> document_start;
    /// Where layers have several adapters by name (NamedAdapters): the one that each row of the batch uses, "" for
    /// none. Null where all rows use the active ones.
    std::shared_ptr<const std::vector<std::string>> adapter_names = nullptr;
};

/// The number of a place where dropout happens, from its path in the model: places draw from different random streams,
/// and the same place always from the same one (FNV-1a, 32 bits).
constexpr std::uint32_t dropout_site(std::string_view path) {
    std::uint32_t hash = 2166136261u;
    for (char c : path) {
        hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
    }
    return hash;
}

} // namespace lowrank
