// PEFT's fixtures as their runs train them.
#pragma once

#include <filesystem>
#include <variant>

#include "lowrank/adapters/peft_files.hpp"
#include "lowrank/models/gpt2.hpp"

/// Loads a fixture's adapter. That of LoRA-FA is a file of LoRA: the fixture's name says it.
inline lowrank::AdapterConfig load_for_training(lowrank::Gpt2<float>& model, const std::filesystem::path& directory) {
    return lowrank::load_adapter<float, lowrank::Cpu>(model, directory, [&](lowrank::AdapterConfig& config) {
        if (auto* lora = std::get_if<lowrank::LoraConfig>(&config)) {
            lora->freeze_a = directory.filename() == "peft_lora_fa";
        }
    });
}
