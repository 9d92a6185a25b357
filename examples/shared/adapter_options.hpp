// The options that say what is trained: an adapter and where, or all weights.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "lowrank/adapters/adapter_config.hpp"
#include "lowrank/optim/parameter_group.hpp"
#include "model.hpp"

namespace examples {

struct AdapterOptions {
    std::string init_adapter, method = "lora", bias = "none", init_lora_weights = "true";
    lowrank::LoraConfig lora;
    lowrank::VeraConfig vera;
    lowrank::AdaLoraConfig adalora;
    std::vector<std::string> target_modules, exclude_modules, modules_to_save, feedforward_modules;
    std::vector<std::int64_t> layers_to_transform;
    std::vector<std::string> rank_pattern, alpha_pattern;

    bool trains_all_weights() const { return method == "full"; }
};

void add_adapter_options(CLI::App& app, AdapterOptions& o);

/// A list of names; a single "all-linear" or a name with characters of a regular expression is a pattern.
std::optional<lowrank::ModuleSelection> selection(const std::vector<std::string>& names);

/// The settings of the options, for a base model of that name.
lowrank::AdapterConfig adapter_config(const AdapterOptions& options, const std::string& base_name);

/// Makes the model ready for training and returns the adapter's settings, in which the base model has that name.
/// Defined for the types of model.hpp.
template <class T>
lowrank::AdapterConfig prepare(lowrank::Gpt2<T>& model, const AdapterOptions& options, const std::string& base_name,
                               std::uint64_t seed, const CLI::App& app);

/// The options that have no say: the file of --init-adapter decides, or they belong to another method.
std::vector<std::string> options_without_effect(const AdapterOptions& options);

/// Throws OptionError for one of them that is given.
void refuse_without_effect(const AdapterOptions& options, const CLI::App& app);

/// The model's directory as JSON can hold it: names of files need not be UTF-8.
std::string base_model_name(const ModelOptions& options);

/// What is trained: one group, or with a ratio above 0 those of LoRA+. Defined for the types of model.hpp.
template <class T>
std::vector<lowrank::ParameterGroup<float>> parameter_groups(lowrank::Gpt2<T>& model, double learning_rate,
                                                             double loraplus_lr_ratio);

} // namespace examples
