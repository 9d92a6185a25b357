// From tensors and weights on a device to tensors of a file.
#pragma once

#include <cmath>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "lowrank/io/safetensors_writer.hpp"
#include "lowrank/tensor/weight_slot.hpp"

namespace lowrank {

namespace detail {

/// A tensor to write whose values are computed when their turn comes, so that one copy exists at a time.
template <class S, class Values>
TensorSource computed_source(const std::string& key, const Shape& shape, const Values& values) {
    const auto kept = std::make_shared<std::vector<S>>();
    TensorSource source(key, dtype_of<S>, std::vector<std::int64_t>(shape.begin(), shape.end()), [values, kept] {
        *kept = values();
        return std::as_bytes(std::span<const S>(*kept));
    });
    source.release = [kept] { *kept = std::vector<S>(); };
    return source;
}

/// A tensor of the host to write as it lies in memory.
template <class S>
TensorSource stored_source(const std::string& key, const Tensor<S, Cpu>& values) {
    const Shape& shape = values.shape();
    return TensorSource(key, dtype_of<S>, std::vector<std::int64_t>(shape.begin(), shape.end()), [values] {
        return std::as_bytes(std::span(values.data(), static_cast<std::size_t>(values.numel())));
    });
}

} // namespace detail

/// A tensor's values as F32.
template <class C, DeviceTag D>
TensorSource tensor_source(const std::string& key, const Tensor<C, D>& values) {
    return detail::computed_source<float>(key, values.shape(), [values] {
        const std::vector<C> stored = values.to_vector();
        return std::vector<float>(stored.begin(), stored.end());
    });
}

/// A matrix in its storage's own type when that is a plain one; decoded to F32 otherwise.
template <class C, DeviceTag D>
TensorSource tensor_source(const std::string& key, const WeightSlot<C, D>& slot) {
    if (!slot.frozen()) {
        return tensor_source(key, slot.values());
    }
    const auto dense = [&]<class S>(std::type_identity<S>) {
        if constexpr (std::same_as<D, Cpu>) {
            if (const auto weight = std::dynamic_pointer_cast<const DenseWeight<S, Cpu>>(slot.frozen())) {
                return detail::stored_source(key, weight->values());
            }
        }
        return detail::computed_source<S>(key, slot.stored_shape(), [weight = slot.frozen()] {
            return weight->template dense_copy<S>().to_vector();
        });
    };
    if (slot.frozen()->storage() == name_of(DType::bf16)) {
        return dense(std::type_identity<bf16>());
    }
    if (slot.frozen()->storage() == name_of(DType::f16)) {
        return dense(std::type_identity<fp16>());
    }
    return dense(std::type_identity<float>());
}

/// Throws NumericError, naming the tensor and the first place, where a value is not finite.
template <class C, DeviceTag D>
void require_finite(const std::string& name, const Tensor<C, D>& values) {
    const std::vector<C> stored = values.to_vector();
    for (std::size_t i = 0; i < stored.size(); ++i) {
        if (!std::isfinite(stored[i])) {
            throw NumericError(concat(name, ": value ", i, " of shape ", values.shape(), " is not finite"));
        }
    }
}

} // namespace lowrank
