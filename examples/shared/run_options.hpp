// The options of a run's course: its optimizer, evaluations, checkpoints, early ends, resume.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include <CLI/CLI.hpp>

#include "lowrank/optim/adamw.hpp"

namespace examples {

inline constexpr const char* staging = "final"; // where the output is made ready beside checkpoints

struct RunOptions {
    std::string optim = "adamw", resume, eval_strategy = "steps", save_strategy = "steps", loss_watchdog = "warn";
    std::int64_t eval_steps = 0, save_steps = 0, save_total_limit = 0, early_stopping_patience = 0;
    double early_stopping_threshold = 0;
    bool load_best_model_at_end = false;

    /// Whether checkpoints are written.
    bool saves() const { return save_steps > 0 || save_strategy == "epoch" || load_best_model_at_end; }
};

void add_run_options(CLI::App& app, RunOptions& o);

/// Adds to AdamW's options what --optim says of its moments. Those in a file lie in TMPDIR where that is set, and
/// otherwise on the file system of the output.
void choose_moments(lowrank::AdamWOptions& adamw, const std::string& optim, const std::string& output);

/// Throws OptionError for an option that lacks another; `evaluates` says whether there is evaluation data.
void refuse_contradictions(const RunOptions& options, bool evaluates);

/// The checkpoint that --resume means, or none where a run is to begin. Tidies up after a run that was killed.
std::optional<std::filesystem::path> checkpoint_to_resume(const RunOptions& options, const std::string& output,
                                                          const CLI::App& app);

} // namespace examples
