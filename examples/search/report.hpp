// What a hyperparameter search tells: trials.jsonl, the table, and the charts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lowrank/train/history.hpp"
#include "space.hpp"

namespace examples {

/// A trial, and how far it came.
struct TrialRecord {
    std::int64_t number; ///< from 1
    TrialSettings settings;
    std::string state = "waiting"; ///< then running; then complete, stopped, failed or interrupted
    std::string error;             ///< of one that failed
    double seconds = 0;
    lowrank::MetricsHistory history{1};

    TrialRecord(std::int64_t number, TrialSettings settings) : number(number), settings(std::move(settings)) {}

    std::int64_t steps() const { return history.steps().empty() ? 0 : history.steps().back().step; }
    /// Of the last evaluation; NaN of a trial that failed or was never evaluated.
    double loss() const;
    /// The mean of the last ten steps.
    double train_loss() const;
    /// Whether it ranks before another one: by its steps, then by its loss; the last are those that failed.
    bool better_than(const TrialRecord& other) const;
};

/// The trials that began, the best first.
std::vector<const TrialRecord*> ranking(const std::vector<TrialRecord>& trials);

/// A line of trials.jsonl.
std::string trial_line(const TrialRecord& trial);

/// A table for a terminal, in the order given.
std::string trial_table(const std::vector<const TrialRecord*>& order);

/// search.svg: the loss against the steps, a line for each trial, and the loss of the first rung, which all trials did,
/// against the learning rate. The best trial stands out. Losses above twice the base model's are not shown.
std::string search_chart(const std::vector<const TrialRecord*>& order, double base_loss, std::int64_t first_rung);

} // namespace examples
