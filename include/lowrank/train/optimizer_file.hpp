// What an optimizer trains and remembers, as tensors of a file, in the type in which it is trained.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "lowrank/io/tensor_file.hpp"
#include "lowrank/io/tensor_source.hpp"
#include "lowrank/optim/adamw.hpp"

namespace lowrank {

namespace detail {

/// The entry's values, which must have the shape and the type S.
template <class S, DeviceTag D>
Tensor<S, D> load_exactly(const TensorEntry& entry, const Shape& shape) {
    if (entry.dtype != dtype_of<S>) {
        throw FileError(
            concat(tensor_in_file(entry), ": found type ", name_of(entry.dtype), ", expected ", name_of(dtype_of<S>)));
    }
    require_shape(entry, shape);
    return tensor_as_stored<S, D>(entry, shape);
}

} // namespace detail

/// Writes every parameter and its moments: parameter.<name>, and exp_avg.<name> and so on, as AdamWState::parts names
/// them. Throws NumericError for a parameter that is not finite, and FileError.
template <class C, DeviceTag D>
void write_optimizer(const AdamW<C, D>& optimizer, const std::filesystem::path& path) {
    std::vector<TensorSource> sources;
    const auto add = [&]<class S>(const std::string& key, const Tensor<S, D>& values) {
        sources.push_back(detail::computed_source<S>(key, values.shape(), [values] { return values.to_vector(); }));
    };
    for (std::size_t i = 0; i < optimizer.parameters().size(); ++i) {
        const AdamWState<C, D>& state = optimizer.state()[i];
        require_finite(state.name, optimizer.parameters()[i]);
        add("parameter." + state.name, optimizer.parameters()[i]);
        AdamWState<C, D>::parts([&](const char* what, auto part) {
            if ((state.*part).defined()) {
                add(concat(what, ".", state.name), state.*part);
            }
        });
    }
    write_safetensors(path, sources);
}

/// How often each parameter was updated, by name.
template <class C, DeviceTag D>
std::map<std::string, std::int64_t> update_counts(const AdamW<C, D>& optimizer) {
    std::map<std::string, std::int64_t> counts;
    for (const AdamWState<C, D>& state : optimizer.state()) {
        counts[state.name] = state.steps;
    }
    return counts;
}

/// Takes the parameters' values over from a file of `write_optimizer`. Throws FileError, before anything is changed,
/// for a missing parameter and another shape or type.
template <class C, DeviceTag D>
void read_parameters(const AdamW<C, D>& optimizer, const SafetensorsFile& file) {
    std::vector<Tensor<C, D>> loaded;
    for (std::size_t i = 0; i < optimizer.parameters().size(); ++i) {
        loaded.push_back(
            detail::load_exactly<C, D>(file.at("parameter." + optimizer.name(i)), optimizer.parameters()[i].shape()));
    }
    for (std::size_t i = 0; i < loaded.size(); ++i) {
        Tensor<C, D> parameter = optimizer.parameters()[i]; // a handle of the same memory
        copy_strided(D{}, loaded[i].shape(), std::as_const(loaded[i]).data(), loaded[i].strides(),
                     parameter.mutable_data());
    }
}

/// Takes parameters, moments and counts over. Throws FileError for what is missing or too much, and as above; the
/// optimizer is of no use then.
template <class C, DeviceTag D>
void read_optimizer(AdamW<C, D>& optimizer, const SafetensorsFile& file,
                    const std::map<std::string, std::int64_t>& counts) {
    std::size_t expected = 0;
    std::vector<AdamWState<C, D>> states;
    for (const AdamWState<C, D>& own : optimizer.state()) {
        const auto count = counts.find(own.name);
        if (count == counts.end()) {
            throw FileError(concat(file.path(), ": parameter '", own.name, "' has no count of updates"));
        }
        AdamWState<C, D> state{own.name, count->second};
        ++expected;
        AdamWState<C, D>::parts([&](const char* what, auto part) {
            if (const auto& values = own.*part; values.defined()) {
                using S = typename std::remove_cvref_t<decltype(values)>::value_type;
                state.*part = detail::load_exactly<S, D>(file.at(concat(what, ".", own.name)), values.shape());
                ++expected;
            }
        });
        states.push_back(std::move(state));
    }
    if (file.keys().size() != expected || counts.size() != states.size()) {
        throw FileError(concat(file.path(), ": found ", file.keys().size(), " tensors and ", counts.size(),
                               " counts of updates, expected ", expected, " and ", states.size()));
    }
    read_parameters(optimizer, file);
    optimizer.load_state(states);
}

} // namespace lowrank
