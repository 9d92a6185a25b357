// The space of a hyperparameter search: its options, and the settings drawn from it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "lowrank/train/search.hpp"

namespace examples {

/// Lists of values, or ranges "low:high".
struct SpaceOptions {
    std::vector<std::string> r = {"4", "8", "16", "32"}, lora_alpha, lora_alpha_ratio = {"1", "2"},
                             learning_rate = {"1e-4:1e-2"}, lora_dropout = {"0"}, loraplus_lr_ratio = {"0"},
                             target_modules = {"all-linear"};
};

void add_space_options(CLI::App& app, SpaceOptions& o);

/// The settings of one trial.
struct TrialSettings {
    std::int64_t r = 8;
    double lora_alpha = 8, learning_rate = 0, lora_dropout = 0, loraplus_lr_ratio = 0;
    std::vector<std::string> target_modules;

    friend bool operator==(const TrialSettings&, const TrialSettings&) = default;

    /// "r 16, alpha 32, learning rate 0.0012, all-linear"
    std::string describe() const;
};

class SearchSpace {
  public:
    /// Throws OptionError for what is no list and no range, and for values out of bounds.
    SearchSpace(const SpaceOptions& options, const CLI::App& app);

    /// So many different settings, or as many as it has. Those of a seed begin with those of a smaller number.
    std::vector<TrialSettings> draw(std::int64_t count, std::uint64_t seed) const;

  private:
    TrialSettings draw(lowrank::Rng& rng) const;

    lowrank::SearchRange r_, ratio_, learning_rate_, lora_dropout_, loraplus_lr_ratio_;
    std::optional<lowrank::SearchRange> alpha_; ///< instead of the ratio
    std::vector<std::vector<std::string>> target_modules_;
};

} // namespace examples
