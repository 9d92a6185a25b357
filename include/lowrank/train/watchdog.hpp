// Watches the training loss for divergence: values far above what they were.
#pragma once

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "lowrank/train/callback.hpp"

namespace lowrank {

/// Compares each step's loss with the running mean and deviation of those before. A loss is far above when it exceeds
/// the mean by six deviations and by half of the mean; three in a row are a divergence (one alone is a hard batch), and
/// are reported once until the loss is back. Such losses do not enter the mean. The first ten steps only fill it.
class LossWatchdog : public TrainerCallback {
  public:
    /// `on_divergence(message)` may warn or throw.
    explicit LossWatchdog(std::function<void(const std::string&)> on_divergence)
        : on_divergence_(std::move(on_divergence)) {}

    void on_step_end(const StepMetrics& metrics, TrainerState&) override {
        if (metrics.skipped) { // counted by the trainer
            return;
        }
        constexpr int patience = 3;
        if (far_above(metrics.loss)) {
            if (++in_a_row_ == patience) {
                on_divergence_(concat("the loss diverges: ", metrics.loss, " at step ", metrics.step,
                                      ", far above its running mean of ", mean_, " for ", patience,
                                      " steps; a lower learning rate may help"));
            }
            return;
        }
        in_a_row_ = 0;
        const double weight = 1 / static_cast<double>(count_ < window ? ++count_ : window);
        const double difference = metrics.loss - mean_;
        mean_ += weight * difference;
        variance_ = (1 - weight) * (variance_ + weight * difference * difference);
    }
    void on_save(const std::filesystem::path&, json& kept) override {
        kept["watchdog"] = {{"mean", mean_}, {"variance", variance_}, {"count", count_}, {"in_a_row", in_a_row_}};
    }
    void on_resume(const std::filesystem::path&, JsonReader& kept) override {
        if (!kept.has("watchdog")) { // it was off
            return;
        }
        JsonReader own = kept.get_object("watchdog");
        mean_ = own.get_number("mean");
        variance_ = own.get_number("variance", 0);
        count_ = own.get_integer("count", 0, window);
        in_a_row_ = own.get_integer("in_a_row", 0);
    }

  private:
    static constexpr std::int64_t window = 50; // steps that the running mean looks back

    bool far_above(double loss) const {
        constexpr std::int64_t enough = 10;
        const double excess = loss - mean_;
        return count_ >= enough && excess > 6 * std::sqrt(variance_) && excess > 0.5 * std::abs(mean_);
    }

    std::function<void(const std::string&)> on_divergence_;
    double mean_ = 0, variance_ = 0;
    std::int64_t count_ = 0, in_a_row_ = 0;
};

} // namespace lowrank
