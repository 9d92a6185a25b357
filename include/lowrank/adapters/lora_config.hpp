// The settings of LoRA, rsLoRA, DoRA and LoRA-FA: PEFT's LoraConfig.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/adapters/adapter_targets.hpp"

namespace lowrank {

/// How the factors of a new adapter start: `kaiming` is PEFT's true (B = 0), `random` its false (B ≠ 0). The last four
/// look at the base or at data: attach_from_base, attach_loftq and attach_eva (initial_pissa.hpp and its neighbours).
enum class LoraInit { kaiming, gaussian, random, orthogonal, pissa, olora, loftq, eva };

/// PEFT's LoraConfig, with its names and defaults.
struct LoraConfig : AdapterTargets {
    static constexpr const char* peft_type = "LORA";
    static constexpr bool adapts_embeddings = true;

    std::int64_t r = 8;
    double lora_alpha = 8;
    double lora_dropout = 0;
    bool use_rslora = false;
    bool use_dora = false;
    bool lora_bias = false;
    /// LoRA-FA (Zhang et al., 2023): A keeps its starting values, so that no input of a layer is kept for its gradient.
    /// PEFT has it as an optimizer: its files are those of LoRA and do not say it.
    bool freeze_a = false;
    LoraInit init_lora_weights = LoraInit::kaiming;
    int pissa_niter = -1; ///< of PEFT's "pissa_niter_[n]": iterations of a randomized SVD; below 0 an exact one
    std::vector<std::pair<std::string, std::int64_t>> rank_pattern; ///< in order: the first match wins
    std::vector<std::pair<std::string, double>> alpha_pattern;
};

/// Sets init_lora_weights, and pissa_niter, by PEFT's name: "true", "false", "gaussian", …, "pissa_niter_16". Throws
/// OptionError for another name.
inline void set_init_lora_weights(LoraConfig& config, const std::string& name) {
    constexpr std::pair<const char*, LoraInit> names[] = {
        {"true", LoraInit::kaiming},          {"false", LoraInit::random}, {"gaussian", LoraInit::gaussian},
        {"orthogonal", LoraInit::orthogonal}, {"pissa", LoraInit::pissa},  {"olora", LoraInit::olora},
        {"loftq", LoraInit::loftq},           {"eva", LoraInit::eva}};
    config.pissa_niter = -1;
    for (const auto& [known, init] : names) {
        if (name == known) {
            config.init_lora_weights = init;
            return;
        }
    }
    const std::string prefix = "pissa_niter_", digits = name.substr(std::min(name.size(), prefix.size()));
    if (!name.starts_with(prefix) || digits.empty() || digits.size() > 3 ||
        digits.find_first_not_of("0123456789") != std::string::npos) {
        throw OptionError(concat("init_lora_weights: found '", name,
                                 "', expected true, false, gaussian, orthogonal, pissa, pissa_niter_[number], olora, "
                                 "loftq or eva"));
    }
    config.init_lora_weights = LoraInit::pissa;
    config.pissa_niter = std::stoi(digits);
}

/// The rank at `path`, after rank_pattern.
inline std::int64_t rank_at(const LoraConfig& config, const std::string& path) {
    return detail::pattern_value(config.rank_pattern, path, config.r);
}

/// α at `path`, after alpha_pattern.
inline double alpha_at(const LoraConfig& config, const std::string& path) {
    return detail::pattern_value(config.alpha_pattern, path, config.lora_alpha);
}

/// Throws OptionError for settings outside their ranges, for combinations that PEFT refuses, and for patterns that are
/// none. `where` names the file or the option's owner.
inline void validate(const LoraConfig& config, const std::string& where) {
    const auto require = [&](bool fine, const std::string& key, const std::string& found, const char* expected) {
        detail::require_setting(fine, where, key, found, expected);
    };
    validate_targets(config, where);
    require(config.r >= 1, "r", std::to_string(config.r), "1 or more");
    require(std::isfinite(config.lora_alpha), "lora_alpha", std::to_string(config.lora_alpha), "a finite number");
    detail::require_dropout(where, "lora_dropout", config.lora_dropout);
    require(!config.lora_bias || !config.use_dora, "lora_bias", "true", "false with use_dora");
    require(!config.lora_bias || config.init_lora_weights == LoraInit::kaiming ||
                config.init_lora_weights == LoraInit::random,
            "init_lora_weights", "another start", "true or false with lora_bias");
    const bool shifts = config.init_lora_weights == LoraInit::pissa || config.init_lora_weights == LoraInit::olora;
    require(!shifts || !config.use_dora, "init_lora_weights", "pissa or olora", "another start with use_dora");
    const bool halves = config.init_lora_weights == LoraInit::orthogonal;
    require(!halves || config.r % 2 == 0, "r", std::to_string(config.r), "an even number with orthogonal weights");
    for (const auto& [key, rank] : config.rank_pattern) {
        require(rank >= 1, "rank_pattern." + key, std::to_string(rank), "1 or more");
        require(!halves || rank % 2 == 0, "rank_pattern." + key, std::to_string(rank),
                "an even number with orthogonal weights");
        detail::require_pattern(where, "rank_pattern", key);
    }
    for (const auto& entry : config.alpha_pattern) {
        detail::require_pattern(where, "alpha_pattern", entry.first);
    }
}

} // namespace lowrank
