// The model that a program works with, and its adapter.
#pragma once

#include <string>
#include <type_traits>

#include <CLI/CLI.hpp>

#include "lowrank/io/tensor_file.hpp"
#include "lowrank/models/gpt2.hpp"

namespace examples {

using Model = lowrank::Gpt2<float>;

/// Which model a program works with; the options that all programs share.
struct ModelOptions {
    std::string model, adapter, dtype = "fp32", quantize = "none";
    bool double_quantization = false;
    int threads = 0;
};

void add_model_options(CLI::App& app, ModelOptions& options, bool with_adapter);

/// --dtype, for the programs that compute in either type.
void add_dtype_option(CLI::App& app, ModelOptions& options);

/// --quantize and --bnb-4bit-use-double-quant.
void add_quantization_options(CLI::App& app, ModelOptions& options);

/// Calls `body` with the type of --dtype, as std::type_identity. Each program has a translation unit for each type, in
/// its folder.
template <class Body>
int with_dtype(const ModelOptions& options, const Body& body) {
    return options.dtype == "bf16" ? body(std::type_identity<lowrank::bf16>()) : body(std::type_identity<float>());
}

// The functions with T are defined for float and lowrank::bf16.

/// The model of the options, with its adapter if one is given. Matrices of a wider type than T are converted, unless
/// they are to be trained: these are kept as the file has them until they become parameters. Linear layers are
/// quantized where the options say so; throws OptionError where they are to be trained.
template <class T = float>
lowrank::Gpt2<T> load_model(const ModelOptions& options, bool trains_all_weights = false);

/// Throws NumericError, naming the tensor, where a weight or an adapter's factor is not finite: weights are not scanned
/// when they are loaded, but this explains a loss that is not.
template <class T>
void require_finite_weights(lowrank::Gpt2<T>& model);

} // namespace examples
