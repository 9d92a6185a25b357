#include "reports.hpp"

#include <algorithm>
#include <utility>

#include <fmt/core.h>

#include "lowrank/io/atomic_file.hpp"
#include "lowrank/train/csv_log.hpp"
#include "lowrank/train/html_report.hpp"
#include "number.hpp"

namespace examples {

void add_report_options(CLI::App& app, ReportOptions& o) {
    app.add_option("--logging-steps", o.logging_steps, "steps between lines of the log")
        ->check(number<std::int64_t>(1));
    app.add_option("--log-file", o.log_file, "write metrics.jsonl here while training, too");
    app.add_option("--logging-dir", o.logging_dir, "write TensorBoard's events here while training");
    app.add_option("--report-to", o.report_to, "reports in the output: csv, tensorboard, html")
        ->delimiter(',')
        ->check(CLI::IsMember({"csv", "tensorboard", "html"}));
    app.add_option("--report-samples", o.report_samples, "rows that the html report shows with the model's answers")
        ->check(number<std::int64_t>(0));
}

Reports::Reports(const ReportOptions& options, const std::string& title, const DataReader& reader,
                 const lowrank::Dataset& rows, std::function<std::string(const Sample&)> continuation)
    : options_(options),
      title_(title),
      reader_(reader),
      rows_(rows),
      continuation_(std::move(continuation)),
      history_(options.logging_steps),
      tensorboard_(options.logging_steps) {
    if (!options.log_file.empty()) {
        history_.follow(options.log_file);
    }
    if (!options.logging_dir.empty()) {
        tensorboard_.follow(options.logging_dir);
    }
    if (wants("html")) {
        before_ = continuations();
    }
}

void Reports::join(std::vector<lowrank::TrainerCallback*>& callbacks) {
    callbacks.push_back(&history_);
    callbacks.push_back(&tensorboard_);
}

void Reports::write(const std::filesystem::path& directory, const NamedValues& settings,
                    const lowrank::TrainerState& state) const {
    lowrank::write_atomically(directory / lowrank::MetricsHistory::file_name, history_.lines());
    if (wants("csv")) {
        lowrank::write_atomically(directory / "metrics.csv", lowrank::metrics_csv(history_));
    }
    if (wants("tensorboard")) {
        lowrank::write_atomically(directory / "events.out.tfevents.finetune", tensorboard_.bytes());
    }
    if (wants("html")) {
        lowrank::write_atomically(directory / "report.html", page(settings, state));
    }
}

void Reports::require_complete() const {
    if (!history_.complete()) {
        throw lowrank::FileError("--log-file: not everything could be written to '" + options_.log_file + "'");
    }
}

bool Reports::wants(const std::string& report) const {
    return std::count(options_.report_to.begin(), options_.report_to.end(), report) > 0;
}

std::vector<std::string> Reports::continuations() const {
    std::vector<std::string> texts;
    for (std::size_t i = 0; i < static_cast<std::size_t>(options_.report_samples) && i < rows_.size(); ++i) {
        texts.push_back(continuation_(Sample(reader_, rows_.examples[i])));
    }
    return texts;
}

std::string Reports::page(const NamedValues& settings, const lowrank::TrainerState& state) const {
    lowrank::ReportContent content;
    content.title = title_;
    content.settings = settings;
    content.summary = {{"steps", fmt::format("{} of {}", state.step, state.max_steps)},
                       {"epochs", fmt::format("{:.2f}", state.epoch)}};
    if (!history_.steps().empty()) {
        content.summary.emplace_back("training loss", fmt::format("{:.4f} → {:.4f}", history_.steps().front().loss,
                                                                  history_.steps().back().loss));
    }
    if (!history_.evaluations().empty()) {
        const lowrank::EvaluationMetrics& last = history_.evaluations().back();
        content.summary.emplace_back("evaluation loss", fmt::format("{:.4f}", last.loss));
        content.summary.emplace_back("perplexity", fmt::format("{:.3f}", last.perplexity()));
    }
    if (state.best_loss) {
        content.summary.emplace_back("best evaluation loss",
                                     fmt::format("{:.4f} at step {}", *state.best_loss, state.best_step));
    }
    const std::vector<std::string> after = continuations();
    for (std::size_t i = 0; i < after.size(); ++i) {
        const Sample sample(reader_, rows_.examples[i]);
        content.samples.push_back({sample.prompt(), sample.answer(), before_[i], after[i]});
    }
    return lowrank::html_report(content, history_);
}

} // namespace examples
