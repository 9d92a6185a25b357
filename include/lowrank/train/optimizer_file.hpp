// What an optimizer trains and remembers, as tensors of a file, in the type in which it is trained.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/io/tensor_file.hpp"
#include "lowrank/io/tensor_source.hpp"
#include "lowrank/optim/adamw.hpp"

namespace lowrank {

/// Writes every parameter and its moments: parameter.<name>, exp_avg.<name>, exp_avg_sq.<name>. Throws NumericError for
/// a parameter that is not finite, and FileError.
template <class C, DeviceTag D>
void write_optimizer(const AdamW<C, D>& optimizer, const std::filesystem::path& path) {
    std::vector<TensorSource> sources;
    const auto add = [&](const std::string& key, const Tensor<C, D>& values) {
        sources.push_back(detail::computed_source<C>(key, values.shape(), [values] { return values.to_vector(); }));
    };
    for (std::size_t i = 0; i < optimizer.parameters().size(); ++i) {
        const AdamWState<C, D>& state = optimizer.state()[i];
        require_finite(state.name, optimizer.parameters()[i]);
        add("parameter." + state.name, optimizer.parameters()[i]);
        add("exp_avg." + state.name, state.exp_avg);
        add("exp_avg_sq." + state.name, state.exp_avg_sq);
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
        const TensorEntry& entry = file.at("parameter." + optimizer.name(i));
        if (entry.dtype != dtype_of<C>) {
            throw FileError(concat(detail::tensor_in_file(entry), ": found type ", name_of(entry.dtype), ", expected ",
                                   name_of(dtype_of<C>)));
        }
        loaded.push_back(load_values<C, D>(entry, optimizer.parameters()[i].shape()));
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
    const std::size_t expected = 3 * optimizer.parameters().size();
    if (file.keys().size() != expected || counts.size() != optimizer.parameters().size()) {
        throw FileError(concat(file.path(), ": found ", file.keys().size(), " tensors and ", counts.size(),
                               " counts of updates, expected ", expected, " and ", optimizer.parameters().size()));
    }
    std::vector<AdamWState<C, D>> states;
    for (std::size_t i = 0; i < optimizer.parameters().size(); ++i) {
        const std::string& name = optimizer.name(i);
        const auto count = counts.find(name);
        if (count == counts.end()) {
            throw FileError(concat(file.path(), ": parameter '", name, "' has no count of updates"));
        }
        const Shape& shape = optimizer.parameters()[i].shape();
        states.push_back({name, count->second, load_values<C, D>(file.at("exp_avg." + name), shape),
                          load_values<C, D>(file.at("exp_avg_sq." + name), shape)});
    }
    read_parameters(optimizer, file);
    optimizer.load_state(states);
}

} // namespace lowrank
