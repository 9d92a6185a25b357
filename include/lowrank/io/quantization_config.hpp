// What config.json says about quantized matrices: "quantization_config", as Transformers writes it for bitsandbytes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lowrank/io/json_reader.hpp"

namespace lowrank {

namespace detail {

/// Refuses a setting that is not the one that is supported.
inline void require_setting(JsonReader& reader, const std::string& key, std::string_view expected) {
    const std::string found = reader.get_string(key);
    if (found != expected) {
        reader.fail(key, in_quotes(found), concat('"', expected, '"'));
    }
}

} // namespace detail

/// Checks "quantization_config" of a config.json, where there is one. Throws FileError, naming the key, for another
/// method than bitsandbytes' NF4.
inline void check_quantization_config(JsonReader& config) {
    if (!config.has("quantization_config")) {
        return;
    }
    JsonReader settings = config.get_object("quantization_config");
    detail::require_setting(settings, "quant_method", "bitsandbytes");
    if (!settings.get_bool_or("load_in_4bit", settings.get_bool_or("_load_in_4bit", false))) {
        settings.fail("load_in_4bit", "false", "true: 8-bit matrices are not supported");
    }
    detail::require_setting(settings, "bnb_4bit_quant_type", "nf4");
    settings.get_string_or("bnb_4bit_compute_dtype", "float32"); // activations have the type that the caller chose
}

/// What Transformers calls the type of activations in a quantized layer, "float32" or "bfloat16", in config.json's
/// "quantization_config". `dense` are the layers whose matrices are not in NF4.
inline json quantization_config(std::string_view compute_type, bool double_quantization,
                                const std::vector<std::string>& dense) {
    return {{"_load_in_4bit", true},
            {"_load_in_8bit", false},
            {"bnb_4bit_compute_dtype", compute_type},
            {"bnb_4bit_quant_storage", "uint8"},
            {"bnb_4bit_quant_type", "nf4"},
            {"bnb_4bit_use_double_quant", double_quantization},
            {"llm_int8_enable_fp32_cpu_offload", false},
            {"llm_int8_has_fp16_weight", false},
            {"llm_int8_skip_modules", dense.empty() ? json(nullptr) : json(dense)},
            {"llm_int8_threshold", 6.0},
            {"load_in_4bit", true},
            {"load_in_8bit", false},
            {"quant_method", "bitsandbytes"}};
}

} // namespace lowrank
