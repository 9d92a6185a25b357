// What training reports after each step, and its form as a line of metrics.jsonl.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

namespace lowrank {

/// One optimizer step.
struct StepMetrics {
    std::int64_t step = 0;     ///< from 1
    double epoch = 0;          ///< epochs done, with fraction
    double loss = 0;           ///< mean over the step's supervised tokens
    double penalty = 0;        ///< what the method adds to the loss, as AdaLoRA does; not in `loss`
    double learning_rate = 0;  ///< used in this step
    double grad_norm = 0;      ///< before clipping
    std::int64_t tokens = 0;   ///< padding excluded
    double seconds = 0;        ///< of this step
    double peak_memory_mb = 0; ///< highest memory use of the process so far
    bool skipped = false;      ///< the loss or a gradient was not finite, and nothing was updated

    double tokens_per_second() const { return seconds > 0 ? static_cast<double>(tokens) / seconds : 0; }
};

/// Whether a log has this step: every `every`-th, the first and the last one.
constexpr bool is_logged(std::int64_t step, std::int64_t every, std::int64_t max_steps) {
    return step % every == 0 || step == 1 || step == max_steps;
}

/// One evaluation.
struct EvaluationMetrics {
    std::int64_t step = 0; ///< optimizer steps before it
    double epoch = 0;      ///< epochs before it, with fraction
    double loss = 0;       ///< mean over the supervised tokens

    double perplexity() const { return std::exp(loss); }
};

/// A number as JSON, which has no NaN: null where it is not finite.
inline nlohmann::ordered_json json_number(double value) {
    return std::isfinite(value) ? nlohmann::ordered_json(value) : nlohmann::ordered_json();
}

/// One line of metrics.jsonl, without its end.
inline std::string metrics_line(const StepMetrics& m) {
    nlohmann::ordered_json line = {{"step", m.step},
                                   {"epoch", m.epoch},
                                   {"loss", json_number(m.loss)},
                                   {"learning_rate", m.learning_rate},
                                   {"grad_norm", json_number(m.grad_norm)},
                                   {"tokens", m.tokens},
                                   {"seconds", m.seconds},
                                   {"tokens_per_second", m.tokens_per_second()},
                                   {"peak_memory_mb", m.peak_memory_mb}};
    if (m.penalty != 0) {
        line["penalty"] = json_number(m.penalty);
    }
    if (m.skipped) {
        line["skipped"] = true;
    }
    return line.dump();
}

/// Likewise of an evaluation.
inline std::string metrics_line(const EvaluationMetrics& m) {
    return nlohmann::ordered_json({{"step", m.step},
                                   {"epoch", m.epoch},
                                   {"eval_loss", json_number(m.loss)},
                                   {"perplexity", json_number(m.perplexity())}})
        .dump();
}

} // namespace lowrank
