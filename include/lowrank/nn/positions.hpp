// Positions of tokens: counted from the start of a row, or of each document in a packed one.
#pragma once

#include <cstdint>
#include <vector>

#include "lowrank/nn/context.hpp"

namespace lowrank {

/// The context's document_start on the host; empty where it has none. Throws ShapeError, naming `op`, where it is not
/// of the ids' `shape`.
template <DeviceTag D>
std::vector<std::int32_t> document_starts(const char* op, const Shape& shape, const ForwardContext<D>& context) {
    if (!context.document_start.defined()) {
        return {};
    }
    if (context.document_start.shape() != shape) {
        throw ShapeError(concat(op, ": document_start ", context.document_start.shape(), " for ids ", shape));
    }
    return context.document_start.to_vector();
}

/// The position of each token of ids of this shape, [.., length], where past[row] tokens precede a row (empty: none
/// precede any). Throws as document_starts.
template <DeviceTag D>
Tensor<std::int32_t, D> position_ids(const char* op, const Shape& shape, const std::vector<std::int64_t>& past,
                                     const ForwardContext<D>& context) {
    const std::int64_t length = shape[shape.rank() - 1];
    const std::vector<std::int32_t> starts = document_starts(op, shape, context);
    std::vector<std::int32_t> positions(static_cast<std::size_t>(numel(shape)));
    for (std::size_t i = 0; i < positions.size(); ++i) {
        const auto row = i / static_cast<std::size_t>(length);
        positions[i] =
            static_cast<std::int32_t>((past.empty() ? 0 : past[row]) + static_cast<std::int64_t>(i) % length);
        if (!starts.empty()) {
            positions[i] -= starts[i];
        }
    }
    return Tensor<std::int32_t, D>::from(positions, shape);
}

} // namespace lowrank
