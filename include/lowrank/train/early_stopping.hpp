// Ends a run when the evaluation loss improves no more.
#pragma once

#include <cstdint>
#include <filesystem>

#include "lowrank/train/callback.hpp"

namespace lowrank {

/// Asks for an end after `patience` evaluations in a row whose loss was not below the best one by more than
/// `threshold`, as Transformers' EarlyStoppingCallback.
class EarlyStopping : public TrainerCallback {
  public:
    /// Throws OptionError for a patience below 1 or a negative threshold.
    explicit EarlyStopping(std::int64_t patience, double threshold = 0) : patience_(patience), threshold_(threshold) {
        if (patience < 1 || !(threshold >= 0)) {
            throw OptionError(concat("early stopping: found patience ", patience, " and threshold ", threshold,
                                     ", expected 1 or more and 0 or more"));
        }
    }

    void on_train_begin(TrainerState& state) override { state.should_stop = state.should_stop || stopped(); }
    void on_evaluate(const EvaluationMetrics& metrics, TrainerState& state) override {
        const bool better = !state.best_loss || *state.best_loss - metrics.loss > threshold_;
        stale_ = better ? 0 : stale_ + 1;
        state.should_stop = state.should_stop || stopped();
    }
    void on_save(const std::filesystem::path&, json& kept) override { kept["stale_evaluations"] = stale_; }
    void on_resume(const std::filesystem::path&, JsonReader& kept) override {
        stale_ = kept.get_integer("stale_evaluations", 0);
    }

    /// Whether the patience is over.
    bool stopped() const { return stale_ >= patience_; }

  private:
    std::int64_t patience_, stale_ = 0;
    double threshold_;
};

} // namespace lowrank
