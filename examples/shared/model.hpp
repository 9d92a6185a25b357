// The model that a program works with, and its adapter.
#pragma once

#include <string>

#include <CLI/CLI.hpp>

#include "lowrank/models/gpt2.hpp"

namespace examples {

using Model = lowrank::Gpt2<float, lowrank::Cpu>;

/// Which model a program works with; the options that all programs share.
struct ModelOptions {
    std::string model, adapter;
    int threads = 0;
};

void add_model_options(CLI::App& app, ModelOptions& options, bool with_adapter);

/// The model of the options, with its adapter if one is given.
Model load_model(const ModelOptions& options);

/// Throws NumericError, naming the tensor, where a weight or an adapter's factor is not finite: weights are not scanned
/// when they are loaded, but this explains a loss that is not.
void require_finite_weights(Model& model);

} // namespace examples
