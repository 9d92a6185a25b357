// The trials of a hyperparameter search over one base model, and their way over the rungs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "data_options.hpp"
#include "lowrank/adapters/adapter_config.hpp"
#include "lowrank/data/loader.hpp"
#include "lowrank/data/order.hpp"
#include "lowrank/train/search.hpp"
#include "lowrank/train/stop_on_interrupt.hpp"
#include "model.hpp"
#include "report.hpp"
#include "space.hpp"

namespace examples {

/// The options of the program.
struct SearchOptions : SpaceOptions {
    ModelOptions model;
    DataChoices choices;
    std::string data, eval_data, output, method = "halving", base_dropout = "config";
    double eval_split = 0.1, max_grad_norm = 1, weight_decay = 0;
    std::int64_t trials = 9, max_steps = 180, min_steps = 10, reduction_factor = 3;
    std::int64_t eval_steps = 0, eval_batch_size = 8, warmup_steps = 0;
    lowrank::LoaderOptions loader{.batch_size = 8};
    bool overwrite = false, use_rslora = false, gradient_checkpointing = false;
};

/// What a trial trains with: its adapter on a model that shares the frozen weights of the base model, its optimizer,
/// its place in the data.
class Session;

/// All trials, and their way over the rungs.
class Trials {
  public:
    /// Draws the settings. Throws OptionError where the model has no use for them.
    Trials(const Model& base, const SearchOptions& options, const lowrank::DatasetSplit& data, const CLI::App& app);
    ~Trials();

    const std::vector<lowrank::SearchRung>& rungs() const { return rungs_; }
    const std::vector<TrialRecord>& records() const { return records_; }

    /// The base model's loss on the evaluation data, where all trials begin.
    double base_loss() const;

    /// Trains. Returns whether Ctrl-C ended it.
    bool run();

    /// Writes the adapter of the best trial as PEFT's files.
    void save(const TrialRecord& best, const std::filesystem::path& directory);

  private:
    void advance(TrialRecord& trial, std::int64_t until, lowrank::StopOnInterrupt& interrupt);
    void settle(const std::string& state, const std::vector<std::size_t>& of);
    std::vector<std::size_t> survivors(const std::vector<std::size_t>& alive, std::size_t count);
    void release();
    std::int64_t steps_left(std::size_t rung, std::size_t trials_left) const;
    void tell(const TrialRecord& trial, std::size_t rung, double seconds_left) const;

    const Model& base_;
    const SearchOptions& options_;
    const lowrank::DatasetSplit& data_;
    const CLI::App& app_;
    std::vector<TrialRecord> records_;
    std::vector<std::unique_ptr<Session>> sessions_; ///< of each trial; null where it can no longer be the best
    std::vector<lowrank::SearchRung> rungs_;
};

} // namespace examples
