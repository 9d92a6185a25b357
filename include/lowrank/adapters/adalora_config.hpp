// The settings of AdaLoRA: PEFT's AdaLoraConfig.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lowrank/adapters/adapter_targets.hpp"

namespace lowrank {

/// PEFT's AdaLoraConfig, with its names and defaults; deltaT is delta_t.
struct AdaLoraConfig : AdapterTargets {
    static constexpr const char* peft_type = "ADALORA";

    std::int64_t init_r = 12;     ///< of every layer, at the start
    std::int64_t target_r = 8;    ///< of the layers on average, at the end
    std::int64_t tinit = 0;       ///< steps before the budget falls
    std::int64_t tfinal = 0;      ///< last steps, after the last allocation
    std::int64_t delta_t = 1;     ///< steps between two allocations
    std::int64_t total_step = 0;  ///< steps of the whole training; 0: not known yet
    double beta1 = 0.85;          ///< how slowly the smoothed sensitivity changes
    double beta2 = 0.85;          ///< how slowly its smoothed uncertainty does
    double orth_reg_weight = 0.5; ///< of the orthogonal penalty
    double lora_alpha = 8;
    double lora_dropout = 0;
    bool init_lora_weights = true; ///< false: singular values that are not 0, and larger vectors
    /// Of the layers of a file, by their paths: which of the init_r triplets it holds. All of them where it is empty.
    std::map<std::string, std::vector<bool>> rank_pattern;
};

/// Throws OptionError for settings outside their ranges. `where` names the file or the option's owner.
inline void validate(const AdaLoraConfig& config, const std::string& where) {
    const auto require = [&](bool fine, const char* key, auto found, const char* expected) {
        detail::require_setting(fine, where, key, std::to_string(found), expected);
    };
    validate_targets(config, where);
    require(config.init_r >= 1, "init_r", config.init_r, "1 or more");
    require(config.target_r >= 1, "target_r", config.target_r, "1 or more");
    require(config.tinit >= 0, "tinit", config.tinit, "0 or more");
    require(config.tfinal >= 0, "tfinal", config.tfinal, "0 or more");
    require(config.delta_t >= 1, "deltaT", config.delta_t, "1 or more");
    require(config.total_step >= 0, "total_step", config.total_step, "0 or more");
    require(config.beta1 > 0 && config.beta1 < 1, "beta1", config.beta1, "above 0 and below 1");
    require(config.beta2 > 0 && config.beta2 < 1, "beta2", config.beta2, "above 0 and below 1");
    require(config.orth_reg_weight >= 0 && std::isfinite(config.orth_reg_weight), "orth_reg_weight",
            config.orth_reg_weight, "0 or more");
    require(config.lora_alpha > 0 && std::isfinite(config.lora_alpha), "lora_alpha", config.lora_alpha, "above 0");
    detail::require_dropout(where, "lora_dropout", config.lora_dropout);
    detail::require_setting(config.total_step == 0 || config.tinit < config.total_step - config.tfinal, where, "tinit",
                            concat(config.tinit, " with tfinal ", config.tfinal, " of total_step ", config.total_step),
                            "steps left between tinit and tfinal, in which the budget falls");
    for (const auto& [path, kept] : config.rank_pattern) {
        detail::require_setting(kept.size() == static_cast<std::size_t>(config.init_r), where, "rank_pattern." + path,
                                concat(kept.size(), " marks"), concat(config.init_r, ", init_r"));
    }
}

/// Throws OptionError, beside what validate does, where training with these settings would not allocate ranks.
inline void require_allocation(const AdaLoraConfig& config, const std::string& where) {
    validate(config, where);
    detail::require_setting(config.total_step > 0, where, "total_step", "0", "the steps of the training");
    detail::require_setting(config.target_r <= config.init_r, where, "target_r", std::to_string(config.target_r),
                            concat("at most init_r, ", config.init_r));
}

/// The rank at `path`: init_r, or less where the file holds less.
inline std::int64_t rank_at(const AdaLoraConfig& config, const std::string& path) {
    const auto kept = config.rank_pattern.find(path);
    return kept == config.rank_pattern.end() ? config.init_r
                                             : std::count(kept->second.begin(), kept->second.end(), true);
}

} // namespace lowrank
