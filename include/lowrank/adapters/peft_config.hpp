// adapter_config.json: PEFT's LoraConfig read from a file, checked, and written as PEFT writes it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "lowrank/adapters/lora_config.hpp"
#include "lowrank/io/json_reader.hpp"
#include "lowrank/io/read_text.hpp"

namespace lowrank {

namespace detail {

inline std::optional<ModuleSelection> read_selection(JsonReader& reader, const std::string& key) {
    const json* value = reader.find(key);
    if (value == nullptr) {
        return std::nullopt;
    }
    if (value->is_string()) {
        return ModuleSelection(value->get<std::string>());
    }
    return ModuleSelection(reader.get_strings(key));
}

inline LoraInit read_lora_init(JsonReader& reader) {
    const json* value = reader.find("init_lora_weights");
    if (value == nullptr || *value == true || *value == "eva" || *value == "orthogonal") {
        return LoraInit::kaiming; // the last two choose starting values only, and the file holds its own
    }
    if (*value == false) {
        return LoraInit::random;
    }
    if (*value == "gaussian") {
        return LoraInit::gaussian;
    }
    reader.fail(
        "init_lora_weights", JsonReader::describe(*value),
        "true, false, \"gaussian\", \"eva\" or \"orthogonal\": the others change the base model, which this file "
        "does not hold; convert the adapter to plain LoRA in PEFT first");
}

/// The entries of an object in the order of the file: the first pattern that matches wins.
template <class Value, class Read>
std::vector<std::pair<std::string, Value>> read_pattern(JsonReader& reader, const nlohmann::ordered_json& ordered,
                                                        const std::string& key, const Read& read) {
    std::vector<std::pair<std::string, Value>> pattern;
    if (reader.has(key)) {
        JsonReader values = reader.get_object(key);
        for (const auto& item : ordered.at(key).items()) {
            pattern.emplace_back(item.key(), read(values, item.key()));
        }
    }
    return pattern;
}

inline bool is_off(const json& value) {
    return value.is_null() || value == false || ((value.is_object() || value.is_array()) && value.empty());
}

} // namespace detail

/// Reads and checks `<directory>/adapter_config.json` of peft_type LORA. Absent keys have PEFT's defaults. Throws
/// FileError, naming file and key, for wrong types and ranges, and for a setting that changes the mathematics and is
/// not supported.
inline LoraConfig read_lora_config(const std::filesystem::path& directory) {
    const std::filesystem::path path = directory / "adapter_config.json";
    JsonReader reader = JsonReader::open(path);
    const auto ordered = nlohmann::ordered_json::parse(read_text(path));
    const std::string type = reader.get_string("peft_type");
    if (type != "LORA") {
        reader.fail("peft_type", "\"" + type + "\"", "\"LORA\"");
    }
    constexpr std::int64_t most_rank = 1 << 20;
    LoraConfig config;
    config.r = reader.get_integer_or("r", config.r, 1, most_rank);
    config.lora_alpha = reader.get_number_or("lora_alpha", config.lora_alpha);
    config.lora_dropout = reader.get_number_or("lora_dropout", 0.0, 0.0, 0.999);
    config.use_rslora = reader.get_bool_or("use_rslora", false);
    config.use_dora = reader.get_bool_or("use_dora", false);
    config.lora_bias = reader.get_bool_or("lora_bias", false);
    const std::string bias = reader.get_string_or("bias", "none");
    if (bias != "none" && bias != "all" && bias != "lora_only") {
        reader.fail("bias", "\"" + bias + "\"", "\"none\", \"all\" or \"lora_only\"");
    }
    config.bias = bias == "all" ? BiasMode::all : bias == "lora_only" ? BiasMode::lora_only : BiasMode::none;
    config.init_lora_weights = detail::read_lora_init(reader);
    config.target_modules = detail::read_selection(reader, "target_modules");
    config.exclude_modules = detail::read_selection(reader, "exclude_modules");
    if (const json* layers = reader.find("layers_to_transform")) {
        std::vector<std::int64_t> numbers;
        for (const json& layer : layers->is_array() ? *layers : json::array({*layers})) {
            if (!layer.is_number_integer() || layer < 0 || layer > (1 << 20)) {
                reader.fail("layers_to_transform", JsonReader::describe(layer), "a layer's number or a list of them");
            }
            numbers.push_back(layer.get<std::int64_t>());
        }
        config.layers_to_transform = numbers;
    }
    if (const auto layers = detail::read_selection(reader, "layers_pattern")) {
        const auto* one = std::get_if<std::string>(&*layers);
        config.layers_pattern = one ? std::vector<std::string>{*one} : std::get<std::vector<std::string>>(*layers);
    }
    config.rank_pattern = detail::read_pattern<std::int64_t>(
        reader, ordered, "rank_pattern",
        [](JsonReader& values, const std::string& key) { return values.get_integer(key, 1, most_rank); });
    config.alpha_pattern =
        detail::read_pattern<double>(reader, ordered, "alpha_pattern",
                                     [](JsonReader& values, const std::string& key) { return values.get_number(key); });
    if (reader.has("modules_to_save")) {
        config.modules_to_save = reader.get_strings("modules_to_save");
    }
    config.base_model_name_or_path = reader.get_string_or("base_model_name_or_path", "");
    for (const char* key : {"alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication",
                            "monteclora_config", "target_parameters", "trainable_token_indices", "use_bdlora",
                            "use_qalora", "velora_config", "megatron_config"}) {
        const json* value = reader.find(key);
        if (value != nullptr && !detail::is_off(*value)) {
            reader.fail(key, JsonReader::describe(*value), "null: this setting is not supported");
        }
    }
    // Keys that change nothing here: the orientation of a weight comes from the base, starting values from the file.
    for (const char* key : {"auto_mapping", "fan_in_fan_out", "inference_mode", "peft_version", "revision", "task_type",
                            "loftq_config", "eva_config", "corda_config", "lora_ga_config", "megatron_core",
                            "qalora_group_size", "ensure_weight_tying", "runtime_config"}) {
        reader.find(key);
    }
    config.unknown_keys = reader.unread_keys();
    try {
        validate(config, path.string());
    } catch (const OptionError& error) {
        throw FileError(error.what());
    }
    return config;
}

/// The text of adapter_config.json for an adapter over a base whose targeted matrices are stored [in, out]
/// (`fan_in_fan_out`) or not: PEFT's keys, sorted, indented by two.
inline json peft_config(const LoraConfig& config, bool fan_in_fan_out,
                        const std::vector<std::string>& default_targets) {
    json document = {
        {"alora_invocation_tokens", nullptr},
        {"arrow_config", nullptr},
        {"auto_mapping", nullptr},
        {"corda_config", nullptr},
        {"ensure_weight_tying", false},
        {"eva_config", nullptr},
        {"inference_mode", true},
        {"kasa_config", nullptr},
        {"layer_replication", nullptr},
        {"layers_pattern", nullptr},
        {"layers_to_transform", nullptr},
        {"loftq_config", json::object()},
        {"lora_ga_config", nullptr},
        {"megatron_config", nullptr},
        {"megatron_core", "megatron.core"},
        {"modules_to_save", nullptr},
        {"monteclora_config", nullptr},
        {"peft_type", "LORA"},
        {"peft_version", "0.21.2"},
        {"qalora_group_size", 16},
        {"revision", nullptr},
        {"target_parameters", nullptr},
        {"task_type", "CAUSAL_LM"},
        {"trainable_token_indices", nullptr},
        {"use_bdlora", nullptr},
        {"use_qalora", false},
        {"velora_config", nullptr},
        {"exclude_modules", nullptr},
    };
    const auto selection = [](const ModuleSelection& modules) {
        return std::visit([](const auto& value) { return json(value); }, modules);
    };
    const auto number = [](double value) { // PEFT's alpha is an integer
        return value == static_cast<double>(static_cast<std::int64_t>(value)) ? json(static_cast<std::int64_t>(value))
                                                                              : json(value);
    };
    document["r"] = config.r;
    document["lora_alpha"] = number(config.lora_alpha);
    document["lora_dropout"] = config.lora_dropout;
    document["use_rslora"] = config.use_rslora;
    document["use_dora"] = config.use_dora;
    document["lora_bias"] = config.lora_bias;
    document["bias"] = config.bias == BiasMode::all ? "all" : config.bias == BiasMode::lora_only ? "lora_only" : "none";
    document["fan_in_fan_out"] = fan_in_fan_out;
    document["init_lora_weights"] = config.init_lora_weights == LoraInit::gaussian
                                        ? json("gaussian")
                                        : json(config.init_lora_weights == LoraInit::kaiming);
    document["target_modules"] = selection(config.target_modules.value_or(default_targets));
    if (config.exclude_modules) {
        document["exclude_modules"] = selection(*config.exclude_modules);
    }
    if (config.layers_to_transform) {
        document["layers_to_transform"] = *config.layers_to_transform;
    }
    if (!config.layers_pattern.empty()) {
        document["layers_pattern"] = config.layers_pattern;
    }
    if (!config.modules_to_save.empty()) {
        document["modules_to_save"] = config.modules_to_save;
    }
    document["rank_pattern"] = json::object();
    for (const auto& [key, rank] : config.rank_pattern) {
        document["rank_pattern"][key] = rank;
    }
    document["alpha_pattern"] = json::object();
    for (const auto& [key, alpha] : config.alpha_pattern) {
        document["alpha_pattern"][key] = number(alpha);
    }
    document["base_model_name_or_path"] =
        config.base_model_name_or_path.empty() ? json() : json(config.base_model_name_or_path);
    return document;
}

} // namespace lowrank
