// Tensor: a cheap handle to typed, strided memory on a device, and its place in the recorded graph.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "lowrank/core/device.hpp"
#include "lowrank/core/scalar.hpp"
#include "lowrank/core/shape.hpp"
#include "lowrank/core/storage.hpp"

namespace lowrank {

struct Node; // autograd/node.hpp

/// An n-dimensional array of T on a device. Copies share memory. A tensor in a graph is immutable: operations give new
/// ones, and only initializers and the optimizer write (mutable_data).
template <class T, DeviceTag D = Cpu>
class Tensor {
  public:
    using value_type = T;
    using device_type = D;

    /// No tensor: `defined()` is false.
    Tensor() = default;

    /// Uninitialized memory of this shape. Throws ShapeError on a negative extent.
    static Tensor empty(const Shape& shape) {
        const std::int64_t count = lowrank::numel(shape);
        return Tensor(Storage<D>::allocate(std::size_t(count) * sizeof(T)), 0, shape, row_major(shape));
    }

    static Tensor zeros(const Shape& shape) {
        Tensor out = empty(shape);
        D::zero(out.mutable_data(), std::size_t(out.numel()) * sizeof(T));
        return out;
    }

    /// A copy of host values. Throws ShapeError when their number is not that of the shape.
    static Tensor from(std::span<const T> values, const Shape& shape) {
        if (lowrank::numel(shape) != static_cast<std::int64_t>(values.size())) {
            throw ShapeError(concat("tensor of shape ", shape, " from ", values.size(), " values"));
        }
        Tensor out = empty(shape);
        D::copy_from_host(out.mutable_data(), values.data(), values.size_bytes());
        return out;
    }
    static Tensor from(const std::vector<T>& values, const Shape& shape) requires(!std::same_as<T, bool>) {
        return from(std::span<const T>(values), shape);
    }

    static Tensor full(const Shape& shape, T value) {
        return from(std::vector<T>(std::size_t(lowrank::numel(shape)), value), shape);
    }
    /// A tensor of shape [] with one value.
    static Tensor scalar(T value) { return from(std::span<const T>(&value, 1), {}); }

    /// Row-major memory of someone else (a mapped file), read-only, kept alive by `owner`.
    static Tensor map(const T* data, const Shape& shape, std::shared_ptr<const void> owner) {
        const std::size_t bytes = std::size_t(lowrank::numel(shape)) * sizeof(T);
        return Tensor(Storage<D>::view(data, bytes, std::move(owner)), 0, shape, row_major(shape));
    }

    /// The same for memory that may be written.
    static Tensor map_writable(T* data, const Shape& shape, std::shared_ptr<const void> owner) {
        const std::size_t bytes = std::size_t(lowrank::numel(shape)) * sizeof(T);
        return Tensor(Storage<D>::view(data, bytes, std::move(owner), true), 0, shape, row_major(shape));
    }

    bool defined() const { return static_cast<bool>(storage_); }
    const Shape& shape() const { return shape_; }
    const Strides& strides() const { return strides_; }
    int rank() const { return shape_.rank(); }
    std::int64_t numel() const { return lowrank::numel(shape_); }
    /// The extent of a dimension; negative ones count from the end.
    std::int64_t size(int dim) const { return shape_[normalize_dim(dim, rank(), "size")]; }

    /// Whether the elements lie in row-major order without gaps.
    bool is_contiguous() const {
        std::int64_t step = 1;
        for (int i = rank() - 1; i >= 0; --i) {
            if (shape_[i] != 1 && strides_[i] != step) {
                return numel() == 0;
            }
            step *= shape_[i];
        }
        return true;
    }

    /// The address of the first element, on the device.
    const T* data() const { return static_cast<const T*>(storage_.data()) + offset_; }
    /// The same for writing. For initializers, the optimizer and kernels that fill a tensor they have just made.
    T* mutable_data() { return static_cast<T*>(storage_.mutable_data()) + offset_; }
    std::uint64_t version() const { return storage_.version(); }
    const Storage<D>& storage() const { return storage_; }

    /// The same memory seen with another layout, outside the graph. The caller answers for the bounds.
    Tensor as_strided(const Shape& shape, const Strides& strides, std::int64_t offset = 0) const {
        return Tensor(storage_, offset_ + offset, shape, strides);
    }

    /// The same values outside the graph.
    Tensor detach() const { return Tensor(storage_, offset_, shape_, strides_); }

    /// The values in row-major order, on the host. Throws ShapeError when the tensor is not contiguous.
    std::vector<T> to_vector() const requires(!std::same_as<T, bool>) {
        if (!is_contiguous()) {
            throw ShapeError(concat("to_vector: shape ", shape_, " with strides ", strides_, " is not contiguous"));
        }
        std::vector<T> out(static_cast<std::size_t>(numel()));
        D::copy_to_host(out.data(), data(), out.size() * sizeof(T));
        return out;
    }

    /// The value of a tensor with one element. Throws ShapeError when it has another number.
    T item() const {
        if (numel() != 1) {
            throw ShapeError(concat("item: shape ", shape_, " has ", numel(), " elements, expected 1"));
        }
        T out;
        D::copy_to_host(&out, data(), sizeof(T));
        return out;
    }

    /// Its node in the recorded graph; null for a constant.
    const std::shared_ptr<Node>& node() const { return node_; }
    Tensor with_node(std::shared_ptr<Node> node) const {
        Tensor out = detach();
        out.node_ = std::move(node);
        return out;
    }

  private:
    Tensor(Storage<D> storage, std::int64_t offset, const Shape& shape, const Strides& strides)
        : storage_(std::move(storage)),
          offset_(offset),
          shape_(shape),
          strides_(strides) {}

    Storage<D> storage_;
    std::int64_t offset_ = 0;
    Shape shape_;
    Strides strides_;
    std::shared_ptr<Node> node_;
};

} // namespace lowrank
