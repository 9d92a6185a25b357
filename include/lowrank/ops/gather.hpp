// gather, index_select, scatter and scatter_add: reading and writing elements by index along one dimension.
#pragma once

#include <concepts>
#include <cstdint>

#include "lowrank/autograd/record.hpp"
#include "lowrank/backend/cpu/lines.hpp"
#include "lowrank/ops/lines.hpp"
#include "lowrank/ops/views.hpp"

namespace lowrank {

/// Element types of index tensors.
template <class I>
concept IndexType = std::same_as<I, std::int32_t> || std::same_as<I, std::int64_t>;

namespace detail {

/// Throws ShapeError, naming the op, for an index outside 0 … n - 1. The index is contiguous.
template <class I, DeviceTag D>
void check_index(const char* op, const Tensor<I, D>& index, std::int64_t n) {
    Tensor<std::int64_t, D> position = Tensor<std::int64_t, D>::empty({});
    first_outside(D{}, index.numel(), index.data(), n, position.mutable_data());
    if (const std::int64_t at = position.item(); at < index.numel()) {
        const I found = slice(reshape(index, {-1}), 0, at, at + 1).item();
        throw ShapeError(concat(op, ": index ", found, " at position ", at, ", expected 0 or more and below ", n));
    }
}

/// Calls `kernel(outer, n, m, inner, index, its three steps)` for memory of this shape and an index along `dim`: of the
/// result's shape, or `shared`, [m], by all lines.
template <class I, DeviceTag D, class Kernel>
void with_index(const Shape& shape, int dim, const Tensor<I, D>& index, bool shared, const Kernel& kernel) {
    const Lines lines(shape, dim);
    const std::int64_t m = index.size(shared ? 0 : dim), inner = lines.inner;
    kernel(lines.outer, lines.n, m, inner, index.data(), shared ? 0 : m * inner, shared ? 1 : inner, shared ? 0 : 1);
}

/// Adds or writes a contiguous source at the index along `dim` to a tensor that was just made.
template <class T, class I, DeviceTag D>
void put_at(Tensor<T, D>& y, int dim, const Tensor<I, D>& index, bool shared, bool replace,
            const Tensor<T, D>& source) {
    T* target = y.mutable_data();
    with_index(y.shape(), dim, index, shared,
               [&](auto... sizes) { scatter_lines(D{}, sizes..., replace, source.data(), target); });
}

/// x at a contiguous index along `dim`, all of whose values are valid.
template <class T, class I, DeviceTag D>
Tensor<T, D> take_at(const Tensor<T, D>& input, int dim, const Tensor<I, D>& index, bool shared) {
    const Tensor<T, D> x = contiguous(input);
    Tensor<T, D> y = Tensor<T, D>::empty(with_extent(x.shape(), dim, index.size(shared ? 0 : dim)));
    T* target = y.mutable_data();
    with_index(x.shape(), dim, index, shared, [&](auto... sizes) { gather_lines(D{}, sizes..., x.data(), target); });
    const Edge<T, D> ex = edge(x);
    return record(y, bool(ex), [ex, dim, shared, at = save_if(ex, index), from = x.shape()](const Tensor<T, D>& dy) {
        Tensor<T, D> dx = Tensor<T, D>::zeros(from);
        put_at(dx, dim, at.get(), shared, false, contiguous(dy));
        ex.add(dx);
    });
}

/// The index, contiguous and checked against x: of x's shape but for `dim`.
template <class T, class I, DeviceTag D>
Tensor<I, D> checked_index(const char* op, const Tensor<T, D>& x, int dim, const Tensor<I, D>& index) {
    if (index.rank() != x.rank() || with_extent(index.shape(), dim, x.shape()[dim]) != x.shape()) {
        throw ShapeError(
            concat(op, ": x and index differ beside dimension ", dim, ": x ", x.shape(), ", index ", index.shape()));
    }
    const Tensor<I, D> at = contiguous(index);
    check_index(op, at, x.shape()[dim]);
    return at;
}

template <class T, class I, DeviceTag D>
Tensor<T, D> scatter_to(const char* op, const Tensor<T, D>& x, int dim, const Tensor<I, D>& index,
                        const Tensor<T, D>& source, bool replace) {
    dim = normalize_dim(dim, x.rank(), op);
    if (source.shape() != index.shape()) {
        throw ShapeError(
            concat(op, ": shapes of index and source differ: index ", index.shape(), ", source ", source.shape()));
    }
    const Tensor<I, D> at = checked_index(op, x, dim, index);
    Tensor<T, D> y = clone(x);
    put_at(y, dim, at, false, replace, contiguous(source.detach()));
    const Edge<T, D> ex = edge(x), es = edge(source);
    return record(y, ex || es, [=, saved = save_if(replace || es, at)](const Tensor<T, D>& dy) {
        if (ex && replace) {
            Tensor<T, D> dx = clone(dy);
            put_at(dx, dim, saved.get(), false, true, Tensor<T, D>::zeros(saved.get().shape()));
            ex.add(dx);
        } else if (ex) {
            ex.add(dy);
        }
        if (es) {
            es.add(take_at(dy, dim, saved.get(), false));
        }
    });
}

} // namespace detail

/// y[.., j, ..] = x[.., index[.., j, ..], ..] along the dimension `dim`, of the index's shape, which is x's but for
/// `dim`. Repeated indices add up in the gradient, in double. Any layout. Throws ShapeError for shapes that do not fit
/// and for an index outside 0 … extent - 1, naming its position.
template <class T, IndexType I, DeviceTag D>
Tensor<T, D> gather(const Tensor<T, D>& x, int dim, const Tensor<I, D>& index) {
    dim = normalize_dim(dim, x.rank(), "gather");
    return detail::take_at(x, dim, detail::checked_index("gather", x, dim, index), false);
}

/// The slices of x at these indices [m] of the dimension `dim`, which gets the extent m. Throws as gather.
template <class T, IndexType I, DeviceTag D>
Tensor<T, D> index_select(const Tensor<T, D>& x, int dim, const Tensor<I, D>& index) {
    dim = normalize_dim(dim, x.rank(), "index_select");
    if (index.rank() != 1) {
        throw ShapeError(concat("index_select: expected an index [m], found ", index.shape()));
    }
    const Tensor<I, D> at = contiguous(index);
    detail::check_index("index_select", at, x.shape()[dim]);
    return detail::take_at(x, dim, at, true);
}

/// A copy of x where source[.., j, ..] is added to the element [.., index[.., j, ..], ..]: the adjoint of gather.
/// Summed in double, in the order of j. The index and the source have the same shape, x's but for `dim`. Throws as
/// gather.
template <class T, IndexType I, DeviceTag D>
Tensor<T, D> scatter_add(const Tensor<T, D>& x, int dim, const Tensor<I, D>& index, const Tensor<T, D>& source) {
    return detail::scatter_to("scatter_add", x, dim, index, source, false);
}

/// The same where source replaces the elements: the last one of a line where an index repeats, though each gets that
/// element's gradient, as in torch.
template <class T, IndexType I, DeviceTag D>
Tensor<T, D> scatter(const Tensor<T, D>& x, int dim, const Tensor<I, D>& index, const Tensor<T, D>& source) {
    return detail::scatter_to("scatter", x, dim, index, source, true);
}

} // namespace lowrank
