// What ops along one dimension share: a contiguous tensor seen as [outer, n, inner] around it.
#pragma once

#include <cstdint>

#include "lowrank/core/shape.hpp"

namespace lowrank::detail {

/// The extents before, at and after a dimension, each multiplied to one number.
struct Lines {
    std::int64_t outer = 1, n = 1, inner = 1;

    Lines(const Shape& shape, int dim) : n(shape[dim]) {
        for (int i = 0; i < shape.rank(); ++i) {
            (i < dim ? outer : inner) *= i == dim ? 1 : shape[i];
        }
    }
};

/// `shape` with another extent in one dimension.
inline Shape with_extent(Shape shape, int dim, std::int64_t extent) {
    shape[dim] = extent;
    return shape;
}

} // namespace lowrank::detail
