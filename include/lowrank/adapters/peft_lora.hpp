// adapter_config.json of LoRA: PEFT's LoraConfig read, checked, and written as PEFT writes it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lowrank/adapters/lora_config.hpp"
#include "lowrank/adapters/peft_targets.hpp"

namespace lowrank {

namespace detail {

inline LoraInit read_lora_init(JsonReader& reader) {
    const json* value = reader.find("init_lora_weights");
    if (value == nullptr || *value == true || *value == "eva") {
        return LoraInit::kaiming; // EVA chooses starting values only, and the file holds its own
    }
    if (*value == false) {
        return LoraInit::random;
    }
    if (*value == "gaussian") {
        return LoraInit::gaussian;
    }
    if (*value == "orthogonal") {
        return LoraInit::orthogonal;
    }
    reader.fail(
        "init_lora_weights", JsonReader::describe(*value),
        "true, false, \"gaussian\", \"eva\" or \"orthogonal\": the others change the base model, which this file "
        "does not hold; convert the adapter to plain LoRA in PEFT first");
}

inline json lora_init_document(LoraInit init) {
    switch (init) {
    case LoraInit::gaussian: return "gaussian";
    case LoraInit::orthogonal: return "orthogonal";
    case LoraInit::random: return false;
    default: return true; // what starts from the base or from data is saved as plain LoRA
    }
}

/// LoRA's keys that are not read, in files of its relatives too.
inline void check_other_lora_keys(JsonReader& reader) {
    refuse_settings(reader, {"alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication",
                             "monteclora_config", "target_parameters", "trainable_token_indices", "use_bdlora",
                             "use_qalora", "velora_config", "megatron_config"});
    pass_over(reader, {"loftq_config", "eva_config", "corda_config", "lora_ga_config", "megatron_core",
                       "qalora_group_size", "ensure_weight_tying", "runtime_config"});
}

} // namespace detail

/// Reads LoRA's keys. Absent ones have PEFT's defaults. Throws FileError, naming file and key, for wrong types and
/// ranges, and for a setting that changes the mathematics and is not supported.
inline void read_config(PeftConfigFile& file, LoraConfig& config) {
    JsonReader& reader = file.reader;
    config.r = reader.get_integer_or("r", config.r, 1, detail::most_rank);
    config.lora_alpha = reader.get_number_or("lora_alpha", config.lora_alpha);
    config.lora_dropout = reader.get_number_or("lora_dropout", 0.0, 0.0, 0.999);
    config.use_rslora = reader.get_bool_or("use_rslora", false);
    config.use_dora = reader.get_bool_or("use_dora", false);
    config.lora_bias = reader.get_bool_or("lora_bias", false);
    config.bias = detail::read_bias(reader, "lora_only");
    config.init_lora_weights = detail::read_lora_init(reader);
    detail::read_layers(reader, config);
    config.rank_pattern =
        detail::read_pattern<std::int64_t>(file, "rank_pattern", [](JsonReader& values, const std::string& key) {
            return values.get_integer(key, 1, detail::most_rank);
        });
    config.alpha_pattern = detail::read_pattern<double>(
        file, "alpha_pattern", [](JsonReader& values, const std::string& key) { return values.get_number(key); });
    detail::check_other_lora_keys(reader);
}

/// LoRA's keys as PEFT writes them.
inline json config_document(const LoraConfig& config) {
    json document = {
        {"alora_invocation_tokens", nullptr},
        {"arrow_config", nullptr},
        {"corda_config", nullptr},
        {"ensure_weight_tying", false},
        {"eva_config", nullptr},
        {"kasa_config", nullptr},
        {"layer_replication", nullptr},
        {"loftq_config", json::object()},
        {"lora_ga_config", nullptr},
        {"megatron_config", nullptr},
        {"megatron_core", "megatron.core"},
        {"monteclora_config", nullptr},
        {"qalora_group_size", 16},
        {"target_parameters", nullptr},
        {"trainable_token_indices", nullptr},
        {"use_bdlora", nullptr},
        {"use_qalora", false},
        {"velora_config", nullptr},
    };
    document["r"] = config.r;
    document["lora_alpha"] = detail::number_document(config.lora_alpha);
    document["lora_dropout"] = config.lora_dropout;
    document["use_rslora"] = config.use_rslora;
    document["use_dora"] = config.use_dora;
    document["lora_bias"] = config.lora_bias;
    document["bias"] = detail::bias_name(config.bias, "lora_only");
    document["init_lora_weights"] = detail::lora_init_document(config.init_lora_weights);
    document["exclude_modules"] = detail::selection_document(config.exclude_modules);
    detail::write_layers(document, config);
    document["rank_pattern"] = json::object();
    for (const auto& [key, rank] : config.rank_pattern) {
        document["rank_pattern"][key] = rank;
    }
    document["alpha_pattern"] = json::object();
    for (const auto& [key, alpha] : config.alpha_pattern) {
        document["alpha_pattern"][key] = detail::number_document(alpha);
    }
    return document;
}

} // namespace lowrank
