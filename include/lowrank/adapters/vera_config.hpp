// The settings of VeRA: PEFT's VeraConfig.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>

#include "lowrank/adapters/adapter_targets.hpp"

namespace lowrank {

/// PEFT's VeraConfig, with its names and defaults. The projections are always in the file (save_projection): nothing
/// but PyTorch's generator makes them again from the key.
struct VeraConfig : AdapterTargets {
    static constexpr const char* peft_type = "VERA";

    std::int64_t r = 256;
    double vera_dropout = 0;
    double d_initial = 0.1;               ///< where λd starts; λb starts at 0
    std::int64_t projection_prng_key = 0; ///< the seed of new projections
    bool init_weights = true;             ///< false: λb starts at 1 and λd at random
};

/// Throws OptionError for settings outside their ranges. `where` names the file or the option's owner.
inline void validate(const VeraConfig& config, const std::string& where) {
    validate_targets(config, where);
    detail::require_setting(config.r >= 1, where, "r", std::to_string(config.r), "1 or more");
    detail::require_setting(std::isfinite(config.d_initial), where, "d_initial", std::to_string(config.d_initial),
                            "a finite number");
    detail::require_dropout(where, "vera_dropout", config.vera_dropout);
    detail::require_setting(!config.exclude_modules, where, "exclude_modules", "a selection",
                            "none: PEFT's VeRA has no such setting; name the modules to adapt instead");
}

} // namespace lowrank
