// The metrics of a run from its first step on, as metrics.jsonl holds them; kept across a resume.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "lowrank/io/atomic_file.hpp"
#include "lowrank/io/json_reader.hpp"
#include "lowrank/train/callback.hpp"

namespace lowrank {

/// Collects the metrics of every `every`-th step, of the first and the last one, and of each evaluation. Logs and
/// reports are made from it. Its lines can also go to a file of their own as they come.
class MetricsHistory : public TrainerCallback {
  public:
    static constexpr const char* file_name = "metrics.jsonl";

    explicit MetricsHistory(std::int64_t every) : every_(every) {}

    /// Writes the lines to `path` too, at once; throws FileError where it cannot be opened.
    void follow(const std::filesystem::path& path) {
        file_.open(path, std::ios::trunc);
        if (!file_) {
            throw FileError(concat(path.string(), ": cannot write"));
        }
    }

    void on_train_begin(TrainerState&) override { put(lines_); }
    void on_step_end(const StepMetrics& metrics, TrainerState& state) override {
        if (is_logged(metrics.step, every_, state.max_steps)) {
            steps_.push_back(metrics);
            add(metrics_line(metrics));
        }
    }
    void on_evaluate(const EvaluationMetrics& metrics, TrainerState&) override {
        evaluations_.push_back(metrics);
        add(metrics_line(metrics));
    }
    void on_save(const std::filesystem::path& directory, json&) override {
        write_atomically(directory / file_name, lines_);
    }
    void on_resume(const std::filesystem::path& directory, JsonReader&) override {
        const std::filesystem::path path = directory / file_name;
        lines_ = read_text(path);
        const std::string where = path.string();
        steps_.clear();
        evaluations_.clear();
        std::size_t begin = 0;
        for (std::size_t number = 1; begin < lines_.size(); ++number) {
            const std::size_t end = std::min(lines_.find('\n', begin), lines_.size());
            const std::string_view line = std::string_view(lines_).substr(begin, end - begin);
            read_line(JsonReader(parse_json(line, where, number), concat(where, ": line ", number)));
            begin = end + 1;
        }
    }

    const std::vector<StepMetrics>& steps() const { return steps_; }
    const std::vector<EvaluationMetrics>& evaluations() const { return evaluations_; }
    /// metrics.jsonl.
    const std::string& lines() const { return lines_; }
    /// Whether all lines are in the file of `follow`.
    bool complete() const { return !file_.is_open() || file_.good(); }

  private:
    void add(const std::string& line) {
        lines_ += line + "\n";
        put(line + "\n");
    }
    void put(const std::string& text) {
        if (file_.is_open()) {
            file_ << text << std::flush;
        }
    }

    void read_line(JsonReader line) {
        const auto number = [&](const std::string& key) { // what is not finite is null
            return line.get_number_or(key, std::numeric_limits<double>::quiet_NaN());
        };
        if (const std::vector<std::string> keys = line.keys();
            std::find(keys.begin(), keys.end(), "eval_loss") != keys.end()) {
            EvaluationMetrics metrics;
            metrics.step = line.get_integer("step", 0);
            metrics.epoch = line.get_number("epoch");
            metrics.loss = number("eval_loss");
            evaluations_.push_back(metrics);
            return;
        }
        StepMetrics metrics;
        metrics.step = line.get_integer("step", 0);
        metrics.epoch = line.get_number("epoch");
        metrics.loss = number("loss");
        metrics.learning_rate = line.get_number("learning_rate");
        metrics.grad_norm = number("grad_norm");
        metrics.tokens = line.get_integer("tokens", 0);
        metrics.seconds = line.get_number("seconds");
        metrics.peak_memory_mb = line.get_number("peak_memory_mb");
        metrics.skipped = line.get_bool_or("skipped", false);
        steps_.push_back(metrics);
    }

    std::int64_t every_;
    std::vector<StepMetrics> steps_;
    std::vector<EvaluationMetrics> evaluations_;
    std::string lines_;
    std::ofstream file_;
};

} // namespace lowrank
