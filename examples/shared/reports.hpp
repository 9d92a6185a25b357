// What a training run tells: the options of its logs and reports, and their making.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "config_file.hpp"
#include "data_options.hpp"
#include "lowrank/train/history.hpp"
#include "lowrank/train/tensorboard.hpp"
#include "samples.hpp"

namespace examples {

struct ReportOptions {
    std::string log_file, logging_dir;
    std::vector<std::string> report_to;
    std::int64_t logging_steps = 10, report_samples = 3;
};

void add_report_options(CLI::App& app, ReportOptions& o);

/// Metrics while training, and the reports that are made of them.
class Reports {
  public:
    /// `continuation` gives what the model writes after a sample's prompt.
    Reports(const ReportOptions& options, const std::string& title, const DataReader& reader,
            const lowrank::Dataset& rows, std::function<std::string(const Sample&)> continuation);

    void join(std::vector<lowrank::TrainerCallback*>& callbacks);

    /// metrics.jsonl, and what --report-to asks for.
    void write(const std::filesystem::path& directory, const NamedValues& settings,
               const lowrank::TrainerState& state) const;

    void require_complete() const;

  private:
    bool wants(const std::string& report) const;

    /// What the model makes of the first rows.
    std::vector<std::string> continuations() const;

    std::string page(const NamedValues& settings, const lowrank::TrainerState& state) const;

    const ReportOptions& options_;
    std::string title_;
    const DataReader& reader_;
    const lowrank::Dataset& rows_;
    std::function<std::string(const Sample&)> continuation_;
    lowrank::MetricsHistory history_;
    lowrank::TensorBoardLog tensorboard_;
    std::vector<std::string> before_;
};

} // namespace examples
