// What takes part in a training run: callbacks, and the state that they see and steer by.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "lowrank/io/json_reader.hpp"
#include "lowrank/train/metrics.hpp"

namespace lowrank {

/// Where a run stands. Callbacks read it, and set the requests to steer the run.
struct TrainerState {
    std::int64_t step = 0;            ///< optimizer steps done
    std::int64_t max_steps = 0;       ///< of the whole run
    double epoch = 0;                 ///< epochs done, with fraction
    std::int64_t skipped_steps = 0;   ///< that updated nothing, since their numbers were not finite
    std::optional<double> best_loss;  ///< lowest evaluation loss so far
    std::int64_t best_step = 0;       ///< of best_loss
    std::int64_t evaluated_step = -1; ///< of the last evaluation

    bool should_evaluate = false; ///< evaluate after this step; set anew at each
    bool should_save = false;     ///< write a checkpoint after this step; set anew at each
    bool should_stop = false;     ///< end the run after this step
};

/// Takes part in Trainer::train, as a TrainerCallback of Transformers does. Override what is of interest. An exception
/// ends the run.
class TrainerCallback {
  public:
    virtual ~TrainerCallback() = default;

    /// Before the first step, of a resumed run too.
    virtual void on_train_begin(TrainerState&) {}
    /// After each optimizer step.
    virtual void on_step_end(const StepMetrics&, TrainerState&) {}
    /// After the last step of an epoch, behind on_step_end.
    virtual void on_epoch_end(TrainerState&) {}
    /// After each evaluation; the best loss in the state is still that of the evaluations before.
    virtual void on_evaluate(const EvaluationMetrics&, TrainerState&) {}
    /// While a checkpoint is written. `directory` has its name only later: what is written there appears with it.
    /// What goes into `kept`, under a key of the callback's own, comes back in on_resume.
    virtual void on_save(const std::filesystem::path& /*directory*/, json& /*kept*/) {}
    /// When a run continues from a checkpoint.
    virtual void on_resume(const std::filesystem::path& /*directory*/, JsonReader& /*kept*/) {}
    /// After the last step, when the weights are those that the run gives.
    virtual void on_train_end(TrainerState&) {}
};

} // namespace lowrank
