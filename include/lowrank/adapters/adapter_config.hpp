// The settings of any adapter: one alternative for each of PEFT's methods.
#pragma once

#include <string>
#include <variant>

#include "lowrank/adapters/adalora_config.hpp"
#include "lowrank/adapters/ia3_config.hpp"
#include "lowrank/adapters/lora_config.hpp"
#include "lowrank/adapters/vera_config.hpp"

namespace lowrank {

/// Settings of one of the methods. Each has `peft_type`, PEFT's name for it, and `validate(config, where)`.
using AdapterConfig = std::variant<LoraConfig, VeraConfig, Ia3Config, AdaLoraConfig>;

/// What the methods have in common.
inline AdapterTargets& targets(AdapterConfig& config) {
    return std::visit([](AdapterTargets& common) -> AdapterTargets& { return common; }, config);
}
inline const AdapterTargets& targets(const AdapterConfig& config) {
    return std::visit([](const AdapterTargets& common) -> const AdapterTargets& { return common; }, config);
}

/// Throws OptionError as the method's own `validate` does.
inline void validate(const AdapterConfig& config, const std::string& where) {
    std::visit([&](const auto& one) { validate(one, where); }, config);
}

} // namespace lowrank
