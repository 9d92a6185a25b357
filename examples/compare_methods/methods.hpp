// The methods of fine-tuning that are compared, each with settings that suit it.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "lowrank/adapters/adapter_config.hpp"

namespace examples {

/// Trains all weights instead of an adapter.
struct FullFineTuning {};

/// One way of fine-tuning.
struct Method {
    std::string name;
    std::variant<lowrank::AdapterConfig, FullFineTuning> config;
    double rate = 1;              ///< learning rate, in units of LoRA's
    double loraplus_lr_ratio = 0; ///< LoRA+: how many times faster B learns; 0: off
    bool quantized = false;       ///< over a base in NF4 with quantized scales

    bool is_full() const { return std::holds_alternative<FullFineTuning>(config); }
};

/// All methods, for adapters of this rank on every linear layer (IA3: on PEFT's choice) in runs of so many steps.
std::vector<Method> all_methods(std::int64_t rank, double alpha, std::int64_t steps);

/// The names, in the order of the table.
std::vector<std::string> method_names();

} // namespace examples
