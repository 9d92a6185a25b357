// The metrics of a run as CSV, for spreadsheets.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "lowrank/train/history.hpp"

namespace lowrank {

/// One row for each step with metrics, those of its evaluation in the last columns; what there is not, and what is not
/// finite, is empty.
inline std::string metrics_csv(const MetricsHistory& history) {
    std::string text = "step,epoch,loss,learning_rate,grad_norm,tokens,seconds,tokens_per_second,peak_memory_mb,"
                       "eval_loss,perplexity\n";
    const std::vector<StepMetrics>& steps = history.steps();
    const std::vector<EvaluationMetrics>& evaluations = history.evaluations();
    constexpr std::int64_t never = std::numeric_limits<std::int64_t>::max();
    const auto cell = [&](double value) { text += std::isfinite(value) ? "," + json(value).dump() : ","; };
    for (std::size_t i = 0, j = 0; i < steps.size() || j < evaluations.size();) {
        const std::int64_t next_step = i < steps.size() ? steps[i].step : never;
        const std::int64_t next_evaluation = j < evaluations.size() ? evaluations[j].step : never;
        const bool has_step = next_step <= next_evaluation, has_evaluation = next_evaluation <= next_step;
        text += std::to_string(has_step ? next_step : next_evaluation);
        cell(has_step ? steps[i].epoch : evaluations[j].epoch);
        if (has_step) {
            const StepMetrics& m = steps[i++];
            cell(m.loss);
            cell(m.learning_rate);
            cell(m.grad_norm);
            text += "," + std::to_string(m.tokens);
            cell(m.seconds);
            cell(m.tokens_per_second());
            cell(m.peak_memory_mb);
        } else {
            text += ",,,,,,,";
        }
        cell(has_evaluation ? evaluations[j].loss : NAN);
        cell(has_evaluation ? evaluations[j].perplexity() : NAN);
        j += has_evaluation;
        text += "\n";
    }
    return text;
}

} // namespace lowrank
