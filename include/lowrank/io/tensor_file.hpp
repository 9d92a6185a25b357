// From tensors in files to tensors and weights on a device: mapped where that is possible, copied where it is not.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "lowrank/io/safetensors.hpp"
#include "lowrank/quant/nf4.hpp"
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

/// Drops the pages of a part of the entry's bytes, where they are mapped.
inline void drop_pages(const TensorEntry& entry, std::span<const std::byte> part) {
    if (entry.file) {
        entry.file->advise_dontneed(static_cast<std::size_t>(part.data() - entry.file->data()), part.size());
    }
}

} // namespace detail

/// Throws FileError unless the entry has this shape.
inline void require_shape(const TensorEntry& entry, const Shape& expected) {
    if (Shape(std::span(entry.shape)) != expected) {
        throw FileError(concat(detail::tensor_in_file(entry), ": found shape ", Shape(std::span(entry.shape)),
                               ", expected ", expected));
    }
}

/// A copy of the entry's values, converted to C, in memory of its own. It is made a part at a time, and the pages of
/// the file that were read are dropped as it goes, so that the two never lie in memory together. Throws FileError for
/// another shape or a type that is not floating.
template <class C, DeviceTag D>
Tensor<C, D> load_values(const TensorEntry& entry, const Shape& expected) {
    require_shape(entry, expected);
    return detail::with_floating_type(entry, [&]<class S>(std::type_identity<S>) {
        constexpr std::size_t most = std::size_t(1) << 20; // elements of a part
        const std::size_t count = entry.bytes.size() / sizeof(S);
        std::vector<S> stored(std::min(count, most));
        std::vector<C> values(stored.size());
        Tensor<C, D> copy = Tensor<C, D>::empty(expected);
        C* target = copy.mutable_data();
        for (std::size_t begin = 0; begin < count; begin += most) {
            const std::size_t part = std::min(most, count - begin);
            const std::byte* source = entry.bytes.data() + begin * sizeof(S);
            std::memcpy(stored.data(), source, part * sizeof(S)); // they may be misaligned in the file
            for (std::size_t i = 0; i < part; ++i) {
                values[i] = convert<C>(stored[i]);
            }
            D::copy_from_host(target + begin, values.data(), part * sizeof(C));
            detail::drop_pages(entry, {source, part * sizeof(S)});
        }
        return copy;
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

/// How the matrices of a model are loaded.
struct LoadOptions {
    /// Those of a wider type than the activations' are converted to it, one by one, instead of while they are packed:
    /// bf16 of an fp32 file takes half its memory, and never both.
    bool convert_wider = false;
    /// The matrices of linear layers, but not the head's, are quantized, one by one.
    std::optional<Nf4Options> nf4 = {};
};

/// The entry as a frozen weight for activations of type T: in its own type, or converted as `options` say. Throws
/// likewise.
template <class T, DeviceTag D>
std::shared_ptr<const Weight<D>> load_weight(const TensorEntry& entry, std::int64_t out, std::int64_t in,
                                             Orientation orientation, const LoadOptions& options) {
    if (options.convert_wider && size_of(entry.dtype) > sizeof(T)) {
        const Shape shape = orientation == Orientation::out_in ? Shape{out, in} : Shape{in, out};
        return std::make_shared<DenseWeight<T, D>>(load_values<T, D>(entry, shape), orientation);
    }
    return load_weight<D>(entry, out, in, orientation);
}

} // namespace lowrank
