// From tensors in files to tensors and weights on a device: mapped where that is possible, copied where it is not.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "lowrank/io/safetensors.hpp"
#include "lowrank/tensor/weight_slot.hpp"

namespace lowrank {

namespace detail {

/// "file.safetensors: tensor 'key'"
inline std::string tensor_in_file(const TensorEntry& entry) {
    return concat(entry.file ? entry.file->path() : std::string("?"), ": tensor '", entry.name, "'");
}

/// Calls `body(std::type_identity<S>)` for the floating type S of the entry. Throws FileError for another type.
template <class Body>
auto with_floating_type(const TensorEntry& entry, const Body& body) {
    switch (entry.dtype) {
    case DType::f32: return body(std::type_identity<float>());
    case DType::f16: return body(std::type_identity<fp16>());
    case DType::bf16: return body(std::type_identity<bf16>());
    case DType::f64: return body(std::type_identity<double>());
    default:
        throw FileError(
            concat(tensor_in_file(entry), ": found type ", name_of(entry.dtype), ", expected F32, F16, BF16 or F64"));
    }
}

/// The entry's values in their own type: mapped on the host, unless misaligned there or on another device.
template <class S, DeviceTag D>
Tensor<S, D> tensor_as_stored(const TensorEntry& entry, const Shape& shape) {
    if constexpr (std::same_as<D, Cpu>) {
        if (reinterpret_cast<std::uintptr_t>(entry.bytes.data()) % alignof(S) == 0) {
            return Tensor<S, D>::map(reinterpret_cast<const S*>(entry.bytes.data()), shape, entry.file);
        }
    }
    Tensor<S, D> copy = Tensor<S, D>::empty(shape);
    D::copy_from_host(copy.mutable_data(), entry.bytes.data(), entry.bytes.size());
    return copy;
}

} // namespace detail

/// Throws FileError unless the entry has this shape.
inline void require_shape(const TensorEntry& entry, const Shape& expected) {
    if (Shape(std::span(entry.shape)) != expected) {
        throw FileError(concat(detail::tensor_in_file(entry), ": found shape ", Shape(std::span(entry.shape)),
                               ", expected ", expected));
    }
}

/// A copy of the entry's values, converted to C, in memory of its own. Throws FileError for another shape or a type
/// that is not floating.
template <class C, DeviceTag D>
Tensor<C, D> load_values(const TensorEntry& entry, const Shape& expected) {
    require_shape(entry, expected);
    return detail::with_floating_type(entry, [&]<class S>(std::type_identity<S>) {
        std::vector<S> stored(entry.bytes.size() / sizeof(S));
        if (!stored.empty()) {
            std::memcpy(stored.data(), entry.bytes.data(), entry.bytes.size());
        }
        std::vector<C> values(stored.size());
        for (std::size_t i = 0; i < stored.size(); ++i) {
            values[i] = convert<C>(stored[i]);
        }
        return Tensor<C, D>::from(values, expected);
    });
}

/// The entry as a frozen weight in its own type; on the host its pages are mapped, and read when they are used. Throws
/// FileError for another shape than [out, in] or [in, out] (by `orientation`) and for a type that is not floating.
template <DeviceTag D>
std::shared_ptr<const Weight<D>> load_weight(const TensorEntry& entry, std::int64_t out, std::int64_t in,
                                             Orientation orientation) {
    const Shape shape = orientation == Orientation::out_in ? Shape{out, in} : Shape{in, out};
    require_shape(entry, shape);
    return detail::with_floating_type(entry, [&]<class S>(std::type_identity<S>) -> std::shared_ptr<const Weight<D>> {
        return std::make_shared<DenseWeight<S, D>>(detail::tensor_as_stored<S, D>(entry, shape), orientation);
    });
}

} // namespace lowrank
