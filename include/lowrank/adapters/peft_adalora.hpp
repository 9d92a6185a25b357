// adapter_config.json of AdaLoRA: PEFT's AdaLoraConfig read, checked, and written as PEFT writes it.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "lowrank/adapters/adalora_config.hpp"
#include "lowrank/adapters/peft_lora.hpp"

namespace lowrank {

namespace detail {

/// A list of true and false.
inline std::vector<bool> read_marks(JsonReader& reader, const std::string& key) {
    const json* value = reader.find(key);
    std::vector<bool> marks;
    for (const json& mark : value != nullptr && value->is_array() ? *value : json::array({value ? *value : json()})) {
        if (!mark.is_boolean()) {
            reader.fail(key, JsonReader::describe(mark), "a list of true and false");
        }
        marks.push_back(mark.get<bool>());
    }
    return marks;
}

/// What the names in rank_pattern end with, behind the path of a layer.
inline constexpr const char* singular_values = ".lora_E";

} // namespace detail

/// Reads AdaLoRA's keys. Absent ones have PEFT's defaults. Throws FileError, naming file and key, for wrong types and
/// ranges, and for a setting that changes the mathematics and is not supported. PEFT's AdaLoRA has no use for r,
/// alpha_pattern, use_rslora and lora_bias.
inline void read_config(PeftConfigFile& file, AdaLoraConfig& config) {
    JsonReader& reader = file.reader;
    constexpr std::int64_t most_steps = std::numeric_limits<std::int32_t>::max();
    config.init_r = reader.get_integer_or("init_r", config.init_r, 1, detail::most_rank);
    config.target_r = reader.get_integer_or("target_r", config.target_r, 1, detail::most_rank);
    config.tinit = reader.get_integer_or("tinit", config.tinit, 0, most_steps);
    config.tfinal = reader.get_integer_or("tfinal", config.tfinal, 0, most_steps);
    config.delta_t = reader.get_integer_or("deltaT", config.delta_t, 1, most_steps);
    config.total_step = reader.get_integer("total_step", 1, most_steps);
    config.beta1 = reader.get_number_or("beta1", config.beta1);
    config.beta2 = reader.get_number_or("beta2", config.beta2);
    config.orth_reg_weight = reader.get_number_or("orth_reg_weight", config.orth_reg_weight);
    config.lora_alpha = reader.get_number_or("lora_alpha", config.lora_alpha);
    config.lora_dropout = reader.get_number_or("lora_dropout", config.lora_dropout, 0.0, 0.999);
    config.bias = detail::read_bias(reader, "lora_only");
    const json* init = reader.find("init_lora_weights");
    config.init_lora_weights = init == nullptr || *init != false; // any text counts as true
    detail::read_layers(reader, config);
    if (reader.has("rank_pattern")) {
        JsonReader pattern = reader.get_object("rank_pattern");
        for (const std::string& key : pattern.keys()) {
            if (!key.ends_with(detail::singular_values)) {
                pattern.fail(key, "this name", "the path of a layer and \".lora_E\"");
            }
            config.rank_pattern[key.substr(0, key.rfind('.'))] = detail::read_marks(pattern, key);
        }
    }
    detail::pass_over(reader, {"r", "alpha_pattern", "use_rslora", "lora_bias"});
    detail::refuse_settings(reader, {"use_dora"});
    detail::check_other_lora_keys(reader);
}

/// AdaLoRA's keys as PEFT writes them, those of LoRA among them.
inline json config_document(const AdaLoraConfig& config) {
    LoraConfig shared;
    static_cast<AdapterTargets&>(shared) = config;
    shared.lora_alpha = config.lora_alpha;
    shared.lora_dropout = config.lora_dropout;
    json document = config_document(shared);
    document["init_r"] = config.init_r;
    document["target_r"] = config.target_r;
    document["tinit"] = config.tinit;
    document["tfinal"] = config.tfinal;
    document["deltaT"] = config.delta_t;
    document["total_step"] = config.total_step;
    document["beta1"] = config.beta1;
    document["beta2"] = config.beta2;
    document["orth_reg_weight"] = config.orth_reg_weight;
    document["init_lora_weights"] = config.init_lora_weights;
    document["rank_pattern"] = config.rank_pattern.empty() ? json() : json::object();
    for (const auto& [path, kept] : config.rank_pattern) {
        document["rank_pattern"][path + detail::singular_values] = kept;
    }
    return document;
}

} // namespace lowrank
