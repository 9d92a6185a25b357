// What the comparison found: a table, a chart and JSON.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/io/json.hpp"

namespace examples {

/// What became of one method.
struct Outcome {
    std::string name;
    double learning_rate = 0;
    std::int64_t trainable = 0;                   ///< parameters
    double train_loss = 0;                        ///< mean of the last tenth of the steps
    double eval_loss = 0;                         ///< at the end
    double seconds = 0;                           ///< of the training steps
    double peak_memory_mb = 0;                    ///< highest memory use, from loading the model on
    std::uintmax_t bytes = 0;                     ///< of what was saved
    std::vector<std::pair<double, double>> curve; ///< step, evaluation loss
};

std::string comparison_table(const std::vector<Outcome>& outcomes, double base_loss);
std::string comparison_chart(const std::vector<Outcome>& outcomes);
lowrank::json comparison_json(const std::vector<Outcome>& outcomes, double base_loss, std::int64_t steps);

} // namespace examples
