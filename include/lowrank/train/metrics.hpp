// What training reports after each step, and its form as a line of metrics.jsonl.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>

#include <nlohmann/json.hpp>

namespace lowrank {

/// One optimizer step.
struct StepMetrics {
    std::int64_t step = 0;    ///< from 1
    double epoch = 0;         ///< epochs done, with fraction
    double loss = 0;          ///< mean over the step's supervised tokens
    double learning_rate = 0; ///< used in this step
    double grad_norm = 0;     ///< before clipping
    std::int64_t tokens = 0;  ///< padding excluded
    double seconds = 0;       ///< of this step
    bool skipped = false;     ///< the loss or a gradient was not finite, and nothing was updated

    double tokens_per_second() const { return seconds > 0 ? static_cast<double>(tokens) / seconds : 0; }
};

/// The highest memory use of this process so far, in megabytes (VmHWM); 0 where the system does not tell.
inline double peak_memory_mb() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with("VmHWM:")) {
            return std::stod(line.substr(6)) / 1000;
        }
    }
    return 0;
}

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
                                   {"peak_memory_mb", peak_memory_mb()}};
    if (m.skipped) {
        line["skipped"] = true;
    }
    return line.dump();
}

/// A line for an evaluation after `step` steps.
inline std::string evaluation_line(std::int64_t step, double loss) {
    return nlohmann::ordered_json(
               {{"step", step}, {"eval_loss", json_number(loss)}, {"perplexity", json_number(std::exp(loss))}})
        .dump();
}

} // namespace lowrank
