// generate's options.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "lowrank/generate/sampler.hpp"
#include "model.hpp"

namespace examples {

struct GenerateOptions {
    ModelOptions model;
    std::string prompt, instruction, input, prompts, output, text_template, system;
    bool chat = false;
    std::int64_t max_new_tokens = 100, batch_size = 8;
    lowrank::SamplerOptions sampler;
    std::vector<std::string> stop;
};

/// Continues, answers or chats with activations of type T. Returns the exit code. Defined for the types of model.hpp.
template <class T>
int generate(GenerateOptions& options, const CLI::App& app);

} // namespace examples
