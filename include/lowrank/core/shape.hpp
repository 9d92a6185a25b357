// Shape and strides of a tensor: small fixed-capacity lists of extents, and what one computes from them.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "lowrank/core/error.hpp"

namespace lowrank {

/// The greatest number of dimensions of a tensor.
inline constexpr int max_rank = 8;

/// A list of at most `max_rank` integers: the extents of a tensor, or its strides in elements.
class Extents {
  public:
    Extents() = default;
    Extents(std::initializer_list<std::int64_t> values) : Extents(std::span(values.begin(), values.size())) {}
    explicit Extents(std::span<const std::int64_t> values) {
        if (values.size() > std::size_t(max_rank)) {
            throw ShapeError(concat("a tensor has at most ", max_rank, " dimensions, got ", values.size()));
        }
        rank_ = static_cast<int>(values.size());
        std::copy(values.begin(), values.end(), values_.begin());
    }

    int rank() const { return rank_; }
    const std::int64_t* begin() const { return values_.data(); }
    const std::int64_t* end() const { return values_.data() + rank_; }
    std::int64_t& operator[](int i) { return values_[std::size_t(i)]; }
    std::int64_t operator[](int i) const { return values_[std::size_t(i)]; }

    void push_back(std::int64_t value) {
        if (rank_ == max_rank) {
            throw ShapeError(concat("a tensor has at most ", max_rank, " dimensions"));
        }
        values_[std::size_t(rank_++)] = value;
    }

    friend bool operator==(const Extents& a, const Extents& b) {
        return std::equal(a.begin(), a.end(), b.begin(), b.end());
    }

    /// "[2, 3, 4]"
    std::string str() const {
        std::string out = "[";
        for (int i = 0; i < rank_; ++i) {
            out += (i ? ", " : "") + std::to_string((*this)[i]);
        }
        return out + "]";
    }

  private:
    std::array<std::int64_t, std::size_t(max_rank)> values_{};
    int rank_ = 0;
};

using Shape = Extents;
using Strides = Extents;

/// The number of elements of a shape. Throws ShapeError on a negative extent or when the product overflows.
inline std::int64_t numel(const Shape& shape) {
    std::int64_t count = 1;
    for (std::int64_t extent : shape) {
        if (extent < 0 || __builtin_mul_overflow(count, extent, &count)) {
            throw ShapeError(concat("shape ", shape, " has a negative extent or too many elements"));
        }
    }
    return count;
}

/// The strides, in elements, of a row-major tensor of this shape.
inline Strides row_major(const Shape& shape) {
    Strides strides = shape;
    std::int64_t step = 1;
    for (int i = shape.rank() - 1; i >= 0; --i) {
        strides[i] = step;
        step *= shape[i];
    }
    return strides;
}

/// Turns a dimension counted from the end (-1 is the last) into one counted from the front.
/// Throws ShapeError, naming `op`, when there is no such dimension.
inline int normalize_dim(int dim, int rank, const char* op) {
    if (dim < -rank || dim >= rank) {
        throw ShapeError(concat(op, ": dimension ", dim, " of a tensor with ", rank, " dimensions"));
    }
    return dim < 0 ? dim + rank : dim;
}

/// The shape that two shapes broadcast to, by NumPy's rule. Throws ShapeError, naming `op`, when they do not.
inline Shape broadcast(const Shape& a, const Shape& b, const char* op) {
    const int rank = std::max(a.rank(), b.rank());
    Shape out;
    for (int i = 0; i < rank; ++i) {
        const int ia = i - (rank - a.rank()), ib = i - (rank - b.rank());
        const std::int64_t ea = ia < 0 ? 1 : a[ia], eb = ib < 0 ? 1 : b[ib];
        if (ea != eb && ea != 1 && eb != 1) {
            throw ShapeError(concat(op, ": shapes do not broadcast: lhs ", a, ", rhs ", b, " (", ea, " vs ", eb, ")"));
        }
        out.push_back(ea == 1 ? eb : ea);
    }
    return out;
}

/// The strides that read a tensor of shape `from` as if it had the shape `to` (0 where it is repeated).
inline Strides broadcast_strides(const Shape& from, const Strides& strides, const Shape& to) {
    Strides out = to;
    for (int i = 0; i < to.rank(); ++i) {
        const int j = i - (to.rank() - from.rank());
        out[i] = (j < 0 || from[j] == 1) ? 0 : strides[j];
    }
    return out;
}

} // namespace lowrank
