// Ends a run in an orderly way when Ctrl-C is pressed.
#pragma once

#include "lowrank/train/callback.hpp"
#include "lowrank/train/interrupt.hpp"

namespace lowrank {

/// Asks the trainer for an end after the running step once SIGINT or SIGTERM came; see InterruptGuard.
class StopOnInterrupt : public TrainerCallback {
  public:
    void on_train_begin(TrainerState& state) override { stop(state); }
    void on_step_end(const StepMetrics&, TrainerState& state) override { stop(state); }

    /// Whether an end was asked for.
    bool interrupted() const { return guard_.requested(); }

  private:
    void stop(TrainerState& state) const { state.should_stop = state.should_stop || interrupted(); }

    InterruptGuard guard_;
};

} // namespace lowrank
