// Merging adapters into the matrices they adapt, and taking the merge back.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "lowrank/nn/embedding.hpp"
#include "lowrank/nn/linear.hpp"

namespace lowrank {

class MergedAdapters;

/// Merges every adapter of a model: each adapted layer gets a new dense weight with the adapter in it, and loses the
/// adapter. The old weights, dense or quantized, are decoded and not written to; a table whose rows an adapter changes
/// is no longer tied to the head. With a `storage` of F32, BF16 or F16 every matrix of the model, quantized ones too,
/// is stored in that type; otherwise the merged ones have the type of parameters, and the others stay. Throws
/// NumericError, naming the layer, when a merged weight is not finite; then nothing has changed.
template <class T, DeviceTag D, Module M>
MergedAdapters merge(M& model, std::optional<DType> storage = {});

/// What a merge did, and what it replaced. `unmerge` brings the old weights, the same objects, and the adapters back.
class MergedAdapters {
  public:
    /// How many adapters were merged.
    std::size_t size() const { return size_; }

    /// The largest |stored − computed| of a merged matrix, and where it is, when the matrices are stored in 16 bits; 0
    /// otherwise, for then they are stored as they were computed.
    double rounding_error() const { return rounding_error_; }
    const std::string& rounded_most() const { return rounded_most_; }

    /// Undoes the merge, bit for bit. The model must not have moved.
    void unmerge() {
        for (auto step = undo_.rbegin(); step != undo_.rend(); ++step) {
            (*step)();
        }
        *this = MergedAdapters();
    }

  private:
    template <class T, DeviceTag D, Module M>
    friend MergedAdapters merge(M& model, std::optional<DType> storage);

    std::size_t size_ = 0;
    double rounding_error_ = 0;
    std::string rounded_most_;
    std::vector<std::function<void()>> undo_;
};

namespace detail {

/// A matrix that takes the place of another one.
template <class C, DeviceTag D>
struct StoredMatrix {
    std::shared_ptr<const Weight<D>> weight;
    double rounding_error = 0; ///< the largest |stored − values|
};

/// Throws NumericError where a value is not finite.
template <class S>
void require_finite_matrix(const std::string& path, const std::vector<S>& values) {
    for (const S value : values) {
        if (!std::isfinite(convert<double>(value))) {
            throw NumericError(
                concat(path, ": the merged weight, as ", name_of(dtype_of<S>), ", has a value that is not finite"));
        }
    }
}

/// Values as a frozen matrix of type S. Throws NumericError, naming the path, for one that is not finite.
template <class S, class C, DeviceTag D>
StoredMatrix<C, D> stored_as(const std::string& path, const Tensor<C, D>& values, Orientation orientation) {
    const std::vector<C> exact = values.to_vector();
    require_finite_matrix(path, exact);
    if constexpr (std::same_as<S, C>) {
        return {std::make_shared<DenseWeight<C, D>>(values, orientation)};
    } else {
        StoredMatrix<C, D> result;
        std::vector<S> rounded(exact.size());
        for (std::size_t i = 0; i < exact.size(); ++i) {
            rounded[i] = S(static_cast<float>(exact[i]));
            result.rounding_error =
                std::max(result.rounding_error, std::abs(convert<double>(rounded[i]) - static_cast<double>(exact[i])));
        }
        require_finite_matrix(path, rounded);
        result.weight = std::make_shared<DenseWeight<S, D>>(Tensor<S, D>::from(rounded, values.shape()), orientation);
        return result;
    }
}

template <class C, DeviceTag D>
StoredMatrix<C, D> stored_matrix(const std::string& path, const Tensor<C, D>& values, Orientation orientation,
                                 std::optional<DType> storage) {
    if constexpr (std::same_as<D, Cpu>) {
        if (storage == DType::bf16) {
            return stored_as<bf16>(path, values, orientation);
        }
        if (storage == DType::f16) {
            return stored_as<fp16>(path, values, orientation);
        }
    }
    if (storage && storage != DType::f32) {
        throw OptionError(concat("merge: found ", name_of(*storage),
                                 " as the type of matrices, expected F32, BF16 or "
                                 "F16, of which other devices have F32"));
    }
    return stored_as<C>(path, values, orientation);
}

} // namespace detail

template <class T, DeviceTag D, Module M>
MergedAdapters merge(M& model, std::optional<DType> storage) {
    using C = compute_t<T>;
    MergedAdapters done;
    std::vector<std::function<void()>> steps;
    const auto replace = [&](auto& target, auto value) {
        steps.emplace_back([&done, &target, value] {
            done.undo_.emplace_back([&target, old = target] { target = old; });
            target = value;
        });
    };
    const auto stored = [&](const std::string& path, const WeightSlot<C, D>& slot, const Tensor<C, D>& values) {
        const detail::StoredMatrix<C, D> matrix = detail::stored_matrix(path, values, slot.orientation(), storage);
        if (matrix.rounding_error > done.rounding_error_) {
            done.rounding_error_ = matrix.rounding_error;
            done.rounded_most_ = path;
        }
        return WeightSlot<C, D>(matrix.weight);
    };
    const auto put = [&](const std::string& path, WeightSlot<C, D>& slot, const Tensor<C, D>& values) {
        replace(slot, stored(path, slot, values));
    };
    std::vector<const WeightSlot<C, D>*> merged;
    for_each<Linear<T, D>>(model, [&](const std::string& path, Linear<T, D>& layer) {
        if (layer.adapter) {
            put(path, layer.weight, layer.adapter->merged(layer));
            replace(layer.bias, layer.adapter->merged_bias(layer));
            replace(layer.adapter, std::shared_ptr<LinearAdapter<T, D>>());
            merged.push_back(&layer.weight);
        }
    });
    for_each<Embedding<T, D>>(model, [&](const std::string& path, Embedding<T, D>& layer) {
        if (layer.adapter) {
            if constexpr (requires { model.tie_head(); }) {
                if (model.is_tied_table(path)) {
                    const WeightSlot<C, D>& table = layer.weight;
                    const auto head = storage ? stored(path, table, dense_values(table)) : table;
                    steps.emplace_back([&done, &model, head] {
                        model.untie_head(head);
                        done.undo_.emplace_back([&model] { model.tie_head(); });
                    });
                }
            }
            put(path, layer.weight, layer.adapter->merged(layer));
            replace(layer.adapter, std::shared_ptr<EmbeddingAdapter<T, D>>());
            merged.push_back(&layer.weight);
        }
    });
    done.size_ = merged.size();
    if (storage) {
        for_each<WeightSlot<C, D>>(model, [&](const std::string& path, WeightSlot<C, D>& slot) {
            const bool stays = slot.frozen() && slot.frozen()->storage() == name_of(*storage);
            if (slot.defined() && !stays && std::find(merged.begin(), merged.end(), &slot) == merged.end()) {
                put(path, slot, dense_values(slot));
            }
        });
    }
    for (const auto& step : steps) {
        step();
    }
    return done;
}

} // namespace lowrank
