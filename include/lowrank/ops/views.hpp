// Ops that change a tensor's layout and not its values: reshape, transpose, permute, slice, select, concat, stack,
// split.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <utility>
#include <vector>

#include "lowrank/autograd/record.hpp"
#include "lowrank/core/shape.hpp"

namespace lowrank {

/// The same values in row-major order: x itself when it is contiguous, otherwise a copy.
template <class T, DeviceTag D>
Tensor<T, D> contiguous(const Tensor<T, D>& x) {
    if (x.is_contiguous()) {
        return x;
    }
    const auto ex = edge(x);
    return record(detail::clone(x), bool(ex), [ex](const Tensor<T, D>& dy) { ex.add(dy); });
}

/// The same values with other extents; at most one may be -1 and follows from the others. A view when x is contiguous,
/// otherwise a copy. Throws ShapeError when the numbers of elements differ.
template <class T, DeviceTag D>
Tensor<T, D> reshape(const Tensor<T, D>& x, const Shape& shape) {
    Shape resolved = shape;
    int unknown = -1;
    std::int64_t known = 1;
    for (int i = 0; i < shape.rank(); ++i) {
        const bool inferred = shape[i] == -1;
        if (inferred ? unknown >= 0 : shape[i] < 0 || __builtin_mul_overflow(known, shape[i], &known)) {
            throw ShapeError(concat("reshape: ", x.shape(), " to ", shape, ", which is no shape"));
        }
        unknown = inferred ? i : unknown;
    }
    if (unknown >= 0 && known != 0) {
        resolved[unknown] = x.numel() / known;
        known *= resolved[unknown];
    }
    if (known != x.numel() || (unknown >= 0 && resolved[unknown] < 0)) {
        throw ShapeError(
            concat("reshape: numbers of elements differ: ", x.shape(), " to ", shape, " (", x.numel(), " elements)"));
    }
    const Tensor<T, D> source = contiguous(x);
    const auto ex = edge(source);
    return record(source.as_strided(resolved, row_major(resolved)), bool(ex),
                  [ex, from = x.shape()](const Tensor<T, D>& dy) { ex.add(reshape(dy, from)); });
}

/// The dimensions first … last joined into one: all of them by default.
template <class T, DeviceTag D>
Tensor<T, D> flatten(const Tensor<T, D>& x, int first = 0, int last = -1) {
    if (x.rank() == 0) {
        return reshape(x, {1});
    }
    first = normalize_dim(first, x.rank(), "flatten");
    last = normalize_dim(last, x.rank(), "flatten");
    Shape shape;
    for (int i = 0; i < x.rank(); ++i) {
        if (i > first && i <= last) {
            shape[first] *= x.shape()[i];
        } else {
            shape.push_back(x.shape()[i]);
        }
    }
    return reshape(x, shape);
}

/// A view with the dimensions in another order: dimension i of the result is dimension dims[i] of x.
/// Throws ShapeError when `dims` is not a permutation.
template <class T, DeviceTag D>
Tensor<T, D> permute(const Tensor<T, D>& x, const Extents& dims) {
    Shape shape = x.shape();
    Strides strides = x.strides();
    Extents inverse = dims;
    bool used[max_rank] = {};
    bool valid = dims.rank() == x.rank();
    for (int i = 0; valid && i < x.rank(); ++i) {
        const int dim = normalize_dim(static_cast<int>(dims[i]), x.rank(), "permute");
        valid = !std::exchange(used[dim], true);
        shape[i] = x.shape()[dim];
        strides[i] = x.strides()[dim];
        inverse[dim] = i;
    }
    if (!valid) {
        throw ShapeError(concat("permute: ", dims, " is no order of the dimensions of ", x.shape()));
    }
    const auto ex = edge(x);
    return record(x.as_strided(shape, strides), bool(ex),
                  [ex, inverse](const Tensor<T, D>& dy) { ex.add(permute(dy, inverse)); });
}

/// A view with two dimensions exchanged.
template <class T, DeviceTag D>
Tensor<T, D> transpose(const Tensor<T, D>& x, int a = -2, int b = -1) {
    Extents dims;
    for (int i = 0; i < x.rank(); ++i) {
        dims.push_back(i);
    }
    std::swap(dims[normalize_dim(a, x.rank(), "transpose")], dims[normalize_dim(b, x.rank(), "transpose")]);
    return permute(x, dims);
}

/// A view of the indices begin … end-1 of one dimension; `end` = -1 means to its end.
/// Throws ShapeError unless 0 ≤ begin ≤ end ≤ extent.
template <class T, DeviceTag D>
Tensor<T, D> slice(const Tensor<T, D>& x, int dim, std::int64_t begin, std::int64_t end = -1) {
    dim = normalize_dim(dim, x.rank(), "slice");
    end = end == -1 ? x.shape()[dim] : end;
    if (begin < 0 || end < begin || end > x.shape()[dim]) {
        throw ShapeError(concat("slice: ", begin, " to ", end, " of dimension ", dim, " of ", x.shape()));
    }
    Shape shape = x.shape();
    shape[dim] = end - begin;
    const auto ex = edge(x);
    return record(x.as_strided(shape, x.strides(), begin * x.strides()[dim]), bool(ex),
                  [ex, dim, begin, from = x.shape()](const Tensor<T, D>& dy) {
                      Tensor<T, D> dx = Tensor<T, D>::zeros(from);
                      const Strides strides = row_major(from);
                      scatter_strided(D{}, dy.shape(), contiguous(dy).data(), dx.mutable_data() + begin * strides[dim],
                                      strides);
                      ex.add(dx);
                  });
}

/// A view with a new dimension of extent 1 at position `dim` (-1: last).
template <class T, DeviceTag D>
Tensor<T, D> unsqueeze(const Tensor<T, D>& x, int dim) {
    dim = normalize_dim(dim, x.rank() + 1, "unsqueeze");
    Shape shape;
    Strides strides;
    for (int i = 0; i <= x.rank(); ++i) {
        shape.push_back(i < dim ? x.shape()[i] : i == dim ? 1 : x.shape()[i - 1]);
        strides.push_back(i < dim ? x.strides()[i] : i == dim ? 1 : x.strides()[i - 1]);
    }
    const auto ex = edge(x);
    return record(x.as_strided(shape, strides), bool(ex),
                  [ex, from = x.shape()](const Tensor<T, D>& dy) { ex.add(reshape(dy, from)); });
}

/// A view without a dimension of extent 1. Throws ShapeError when the extent is another.
template <class T, DeviceTag D>
Tensor<T, D> squeeze(const Tensor<T, D>& x, int dim) {
    dim = normalize_dim(dim, x.rank(), "squeeze");
    if (x.shape()[dim] != 1) {
        throw ShapeError(concat("squeeze: dimension ", dim, " of ", x.shape(), " is not 1"));
    }
    Shape shape;
    Strides strides;
    for (int i = 0; i < x.rank(); ++i) {
        if (i != dim) {
            shape.push_back(x.shape()[i]);
            strides.push_back(x.strides()[i]);
        }
    }
    const auto ex = edge(x);
    return record(x.as_strided(shape, strides), bool(ex),
                  [ex, from = x.shape()](const Tensor<T, D>& dy) { ex.add(reshape(dy, from)); });
}

/// A view of one index of a dimension, which disappears.
template <class T, DeviceTag D>
Tensor<T, D> select(const Tensor<T, D>& x, int dim, std::int64_t index) {
    dim = normalize_dim(dim, x.rank(), "select");
    if (index < 0 || index >= x.shape()[dim]) {
        throw ShapeError(concat("select: index ", index, " of dimension ", dim, " of ", x.shape()));
    }
    return squeeze(slice(x, dim, index, index + 1), dim);
}

/// Tensors joined along an existing dimension; their other extents are equal. Throws ShapeError otherwise.
template <class T, DeviceTag D>
Tensor<T, D> concat(const std::vector<Tensor<T, D>>& parts, int dim) {
    if (parts.empty()) {
        throw ShapeError("concat: no tensors");
    }
    const Shape first = parts[0].shape();
    dim = normalize_dim(dim, first.rank(), "concat");
    Shape shape = first;
    shape[dim] = 0;
    bool wanted = false;
    std::vector<Edge<T, D>> edges;
    std::vector<std::int64_t> lengths;
    for (const Tensor<T, D>& part : parts) {
        Shape expected = first;
        expected[dim] = part.rank() == first.rank() ? part.shape()[dim] : 0;
        if (part.shape() != expected) {
            throw ShapeError(concat("concat: along dimension ", dim, ": lhs ", first, ", rhs ", part.shape()));
        }
        shape[dim] += expected[dim];
        edges.push_back(edge(part));
        lengths.push_back(expected[dim]);
        wanted = wanted || edges.back();
    }
    Tensor<T, D> y = Tensor<T, D>::empty(shape);
    T* target = y.mutable_data();
    for (const Tensor<T, D>& part : parts) {
        scatter_strided(D{}, part.shape(), contiguous(part.detach()).data(), target, y.strides());
        target += part.shape()[dim] * y.strides()[dim];
    }
    return record(y, wanted, [edges, lengths, dim](const Tensor<T, D>& dy) {
        std::int64_t begin = 0;
        for (std::size_t i = 0; i < edges.size(); begin += lengths[i++]) {
            if (edges[i]) {
                edges[i].add(slice(dy, dim, begin, begin + lengths[i]));
            }
        }
    });
}
template <class T, DeviceTag D>
Tensor<T, D> concat(std::initializer_list<Tensor<T, D>> parts, int dim) {
    return concat(std::vector<Tensor<T, D>>(parts), dim);
}

/// Tensors of one shape joined along a new dimension, which is `dim` of the result. Throws ShapeError otherwise.
template <class T, DeviceTag D>
Tensor<T, D> stack(const std::vector<Tensor<T, D>>& parts, int dim = 0) {
    std::vector<Tensor<T, D>> slices;
    for (const Tensor<T, D>& part : parts) {
        if (part.shape() != parts[0].shape()) {
            throw ShapeError(concat("stack: shapes differ: lhs ", parts[0].shape(), ", rhs ", part.shape()));
        }
        slices.push_back(unsqueeze(part, dim));
    }
    return concat(slices, dim);
}

/// Views of consecutive pieces of one dimension, of these lengths. Throws ShapeError when they do not add up.
template <class T, DeviceTag D>
std::vector<Tensor<T, D>> split(const Tensor<T, D>& x, const std::vector<std::int64_t>& lengths, int dim) {
    std::vector<Tensor<T, D>> parts;
    std::int64_t begin = 0;
    for (const std::int64_t length : lengths) {
        parts.push_back(slice(x, dim, begin, begin + length));
        begin += length;
    }
    if (begin != x.size(dim)) {
        throw ShapeError(concat("split: pieces of ", begin, " of dimension ", dim, " of ", x.shape()));
    }
    return parts;
}

} // namespace lowrank
