// The keys of adapter_config.json that all of PEFT's methods share, read, checked and written.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "lowrank/adapters/adapter_targets.hpp"
#include "lowrank/io/json_reader.hpp"
#include "lowrank/io/read_text.hpp"

namespace lowrank {

/// An open adapter_config.json.
struct PeftConfigFile {
    std::filesystem::path path;
    JsonReader reader;
    nlohmann::ordered_json ordered; ///< the same text, its keys in the order of the file

    /// Throws FileError for a file that is missing or no JSON object.
    explicit PeftConfigFile(const std::filesystem::path& file)
        : path(file),
          reader(JsonReader::open(file)),
          ordered(nlohmann::ordered_json::parse(read_text(file))) {}
};

namespace detail {

inline constexpr std::int64_t most_rank = 1 << 20;

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

/// The entries of an object in the order of the file: the first pattern that matches wins.
template <class Value, class Read>
std::vector<std::pair<std::string, Value>> read_pattern(PeftConfigFile& file, const std::string& key,
                                                        const Read& read) {
    std::vector<std::pair<std::string, Value>> pattern;
    if (file.reader.has(key)) {
        JsonReader values = file.reader.get_object(key);
        for (const auto& item : file.ordered.at(key).items()) {
            pattern.emplace_back(item.key(), read(values, item.key()));
        }
    }
    return pattern;
}

inline bool is_off(const json& value) {
    return value.is_null() || value == false || ((value.is_object() || value.is_array()) && value.empty());
}

/// Throws for a setting that changes the mathematics and is not supported.
inline void refuse_settings(JsonReader& reader, const std::vector<const char*>& keys) {
    for (const char* key : keys) {
        const json* value = reader.find(key);
        if (value != nullptr && !is_off(*value)) {
            reader.fail(key, JsonReader::describe(*value), "null: this setting is not supported");
        }
    }
}

/// Marks keys as known that change nothing here.
inline void pass_over(JsonReader& reader, const std::vector<const char*>& keys) {
    for (const char* key : keys) {
        reader.find(key);
    }
}

/// Reads "bias", whose last value has the name of the method.
inline BiasMode read_bias(JsonReader& reader, const std::string& only) {
    const std::string bias = reader.get_string_or("bias", "none");
    if (bias != "none" && bias != "all" && bias != only) {
        reader.fail("bias", "\"" + bias + "\"", "\"none\", \"all\" or \"" + only + "\"");
    }
    return bias == "all" ? BiasMode::all : bias == only ? BiasMode::lora_only : BiasMode::none;
}

inline const char* bias_name(BiasMode bias, const char* only) {
    return bias == BiasMode::all ? "all" : bias == BiasMode::lora_only ? only : "none";
}

/// layers_to_transform and layers_pattern, which not every method has.
inline void read_layers(JsonReader& reader, AdapterTargets& config) {
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
    if (const auto layers = read_selection(reader, "layers_pattern")) {
        const auto* one = std::get_if<std::string>(&*layers);
        config.layers_pattern = one ? std::vector<std::string>{*one} : std::get<std::vector<std::string>>(*layers);
    }
}

/// What every method has.
inline void read_targets(JsonReader& reader, AdapterTargets& config) {
    config.target_modules = read_selection(reader, "target_modules");
    config.exclude_modules = read_selection(reader, "exclude_modules");
    if (reader.has("modules_to_save")) {
        config.modules_to_save = reader.get_strings("modules_to_save");
    }
    config.base_model_name_or_path = reader.get_string_or("base_model_name_or_path", "");
    // The orientation of a weight comes from the base.
    pass_over(reader, {"auto_mapping", "fan_in_fan_out", "inference_mode", "peft_version", "revision", "task_type"});
}

inline json selection_document(const std::optional<ModuleSelection>& modules) {
    return modules ? std::visit([](const auto& value) { return json(value); }, *modules) : json();
}

inline json number_document(double value) { // PEFT's alpha is an integer
    return value == static_cast<double>(static_cast<std::int64_t>(value)) ? json(static_cast<std::int64_t>(value))
                                                                          : json(value);
}

inline void write_layers(json& document, const AdapterTargets& config) {
    document["layers_to_transform"] = config.layers_to_transform ? json(*config.layers_to_transform) : json();
    document["layers_pattern"] = config.layers_pattern.empty() ? json() : json(config.layers_pattern);
}

/// What every method's file says.
inline void write_targets(json& document, const AdapterTargets& config, bool fan_in_fan_out) {
    document["auto_mapping"] = nullptr;
    document["base_model_name_or_path"] =
        config.base_model_name_or_path.empty() ? json() : json(config.base_model_name_or_path);
    document["fan_in_fan_out"] = fan_in_fan_out;
    document["inference_mode"] = true;
    document["modules_to_save"] = config.modules_to_save.empty() ? json() : json(config.modules_to_save);
    document["peft_version"] = "0.21.2";
    document["revision"] = nullptr;
    document["target_modules"] = selection_document(config.target_modules);
    document["task_type"] = "CAUSAL_LM";
}

} // namespace detail

} // namespace lowrank
