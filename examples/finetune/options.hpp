// finetune's options, and what follows from them alone.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "adapter_options.hpp"
#include "config_file.hpp"
#include "data_options.hpp"
#include "lowrank/data/loader.hpp"
#include "lowrank/optim/adamw.hpp"
#include "lowrank/train/checkpoint.hpp"
#include "model.hpp"
#include "program.hpp"
#include "reports.hpp"
#include "run_options.hpp"

namespace examples {

/// All of them.
struct FinetuneOptions : AdapterOptions, RunOptions, ReportOptions {
    ModelOptions model;
    std::string data, output, eval_data, base_dropout = "config";
    DataChoices choices;
    double eval_split = 0;
    bool packing = false, overwrite = false;
    lowrank::AdamWOptions adamw{.learning_rate = 2e-4, .weight_decay = 0.0};
    double loraplus_lr_ratio = 0, max_grad_norm = 1;
    std::string scheduler = "linear";
    double warmup_ratio = 0, num_train_epochs = 3;
    std::int64_t warmup_steps = 0, max_steps = 0;
    lowrank::LoaderOptions loader{.batch_size = 8};
    std::int64_t eval_batch_size = 8;
    bool no_shuffle = false, gradient_checkpointing = false;
};

/// Throws OptionError for options that do not go together.
void refuse_contradictions(const FinetuneOptions& options, const CLI::App& app);

/// The options in effect that finetune.toml repeats.
NamedValues effective_options(const FinetuneOptions& options, const Program& app);

/// What a resumed run must have in common with its beginning. Files count by what is in them, not by their names.
lowrank::RunSettings run_settings(const FinetuneOptions& options, const Program& app,
                                  const lowrank::AdapterConfig& config, const lowrank::Dataset& data,
                                  const std::optional<lowrank::Dataset>& eval_data);

/// Trains with activations of type T. Returns the exit code. Defined for the types of model.hpp.
template <class T>
int finetune(FinetuneOptions& options, const Program& app);

} // namespace examples
