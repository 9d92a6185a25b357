// Embedding: rows of a table, by index.
#pragma once

#include <concepts>
#include <cstdint>
#include <vector>

#include "lowrank/autograd/record.hpp"
#include "lowrank/backend/cpu/columns.hpp"
#include "lowrank/backend/cpu/embedding.hpp"
#include "lowrank/ops/views.hpp"
#include "lowrank/tensor/weight_slot.hpp"

namespace lowrank {

/// y [.., width] = table[ids] for ids [..] and a table [rows, width], given as T: embedding<T>(ids, table). A frozen
/// table of any storage gets no gradient; a trained one the sum of the rows' gradients, repeated ids included. Throws
/// ShapeError for an id that is no row, naming its position, and for a table stored [in, out].
template <class T, class C, DeviceTag D>
Tensor<T, D> embedding(const Tensor<std::int32_t, D>& ids, const WeightSlot<C, D>& table) {
    static_assert(std::same_as<C, compute_t<T>>, "embedding: the table's values must be of type compute_t<T>");
    if (table.orientation() != Orientation::out_in) {
        throw ShapeError("embedding: the table is stored [width, rows], expected [rows, width]");
    }
    const Tensor<std::int32_t, D> index = contiguous(ids);
    const std::int64_t rows = table.out(), width = table.in(), count = index.numel();
    const std::vector<std::int32_t> host = index.to_vector();
    for (std::size_t i = 0; i < host.size(); ++i) {
        if (host[i] < 0 || host[i] >= rows) {
            throw ShapeError(concat("embedding: id ", host[i], " at position ", i, ", expected 0 to ", rows - 1));
        }
    }
    Shape shape = ids.shape();
    shape.push_back(width);
    Tensor<T, D> y = Tensor<T, D>::empty(shape);
    if (table.frozen()) {
        embedding_rows(D{}, count, index.data(), *table.frozen(), y.mutable_data());
        return y;
    }
    gather_rows(D{}, count, width, index.data(), table.values().data(), y.mutable_data());
    const Edge et = edge(table.values());
    return record(y, bool(et), [=, saved = save(index)](const Tensor<T, D>& dy) {
        Tensor<C, D> dtable = Tensor<C, D>::zeros({rows, width});
        embedding_backward(D{}, count, width, saved.get().data(), contiguous(dy).data(), dtable.mutable_data());
        et.add(dtable);
    });
}

} // namespace lowrank
