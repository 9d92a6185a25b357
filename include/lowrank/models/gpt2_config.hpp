// GPT-2's config.json: what Transformers writes there, checked.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lowrank/io/json_reader.hpp"
#include "lowrank/io/quantization_config.hpp"
#include "lowrank/tensor/matmul_problem.hpp"

namespace lowrank {

/// The sizes and settings of a GPT-2, named as in config.json.
struct Gpt2Config {
    std::int64_t vocab_size = 50257;
    std::int64_t n_positions = 1024;
    std::int64_t n_embd = 768;
    std::int64_t n_layer = 12;
    std::int64_t n_head = 12;
    std::int64_t n_inner = 3072;
    Activation activation_function = Activation::gelu_tanh;
    double layer_norm_epsilon = 1e-5;
    double resid_pdrop = 0.1, embd_pdrop = 0.1, attn_pdrop = 0.1;
    bool scale_attn_weights = true;
    bool scale_attn_by_inverse_layer_idx = false;
    bool tie_word_embeddings = true;
    std::optional<std::int32_t> eos_token_id;

    /// Keys of the file that this library does not know; they are ignored, and worth a line of notice.
    std::vector<std::string> unknown_keys;
    /// The file's own text: saved again with the model.
    json document;
};

namespace detail {

inline Activation gpt2_activation(JsonReader& reader) {
    const std::string name = reader.get_string_or("activation_function", "gelu_new");
    if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast") {
        return Activation::gelu_tanh;
    }
    if (name == "gelu") {
        return Activation::gelu_erf;
    }
    if (name == "relu") {
        return Activation::relu;
    }
    reader.fail("activation_function", "\"" + name + "\"", "gelu_new, gelu_pytorch_tanh, gelu_fast, gelu or relu");
}

} // namespace detail

/// Reads and checks `<directory>/config.json`. Defaults are those of Transformers' GPT2Config. Throws FileError, naming
/// file and key, for a value of the wrong type or range and for a setting that changes the mathematics and is not
/// supported.
inline Gpt2Config read_gpt2_config(const std::filesystem::path& directory) {
    const std::filesystem::path path = directory / "config.json";
    JsonReader reader = JsonReader::open(path);
    const std::string type = reader.get_string_or("model_type", "gpt2");
    if (type != "gpt2") {
        reader.fail("model_type", "\"" + type + "\"", "\"gpt2\"");
    }
    constexpr std::int64_t most = std::int64_t(1) << 24;
    Gpt2Config config;
    config.vocab_size = reader.get_integer_or("vocab_size", config.vocab_size, 1, most);
    config.n_positions = reader.get_integer_or("n_positions", config.n_positions, 1, most);
    config.n_embd = reader.get_integer_or("n_embd", config.n_embd, 1, most);
    config.n_layer = reader.get_integer_or("n_layer", config.n_layer, 0, 4096);
    config.n_head = reader.get_integer_or("n_head", config.n_head, 1, most);
    config.n_inner = reader.get_integer_or("n_inner", 4 * config.n_embd, 1, most);
    if (config.n_embd % config.n_head != 0) {
        reader.fail("n_head", std::to_string(config.n_head), concat("a divisor of n_embd, ", config.n_embd));
    }
    config.activation_function = detail::gpt2_activation(reader);
    config.layer_norm_epsilon = reader.get_number_or("layer_norm_epsilon", 1e-5, 0.0, 1.0);
    for (const auto& [key, target] :
         {std::pair{"resid_pdrop", &config.resid_pdrop}, std::pair{"embd_pdrop", &config.embd_pdrop},
          std::pair{"attn_pdrop", &config.attn_pdrop}}) {
        *target = reader.get_number_or(key, 0.1, 0.0, 0.999);
    }
    config.scale_attn_weights = reader.get_bool_or("scale_attn_weights", true);
    config.scale_attn_by_inverse_layer_idx = reader.get_bool_or("scale_attn_by_inverse_layer_idx", false);
    config.tie_word_embeddings = reader.get_bool_or("tie_word_embeddings", true);
    if (reader.get_bool_or("add_cross_attention", false)) {
        reader.fail("add_cross_attention", "true", "false: cross-attention is not supported");
    }
    // reorder_and_upcast_attn changes where half precision rounds, not the mathematics: attention here is fp32 anyway.
    reader.find("reorder_and_upcast_attn");
    if (reader.has("eos_token_id")) {
        config.eos_token_id = static_cast<std::int32_t>(reader.get_integer("eos_token_id", 0, most));
    }
    check_quantization_config(reader);
    // Keys that say nothing about the mathematics here.
    for (const char* key : {"architectures",
                            "n_ctx",
                            "dtype",
                            "torch_dtype",
                            "bos_token_id",
                            "pad_token_id",
                            "use_cache",
                            "transformers_version",
                            "initializer_range",
                            "_name_or_path",
                            "summary_type",
                            "summary_use_proj",
                            "summary_activation",
                            "summary_proj_to_labels",
                            "summary_first_dropout",
                            "task_specific_params",
                            "return_dict",
                            "output_hidden_states",
                            "output_attentions",
                            "chunk_size_feed_forward",
                            "is_encoder_decoder",
                            "id2label",
                            "label2id",
                            "problem_type"}) {
        reader.find(key);
    }
    config.unknown_keys = reader.unread_keys();
    config.document = read_json(path);
    return config;
}

} // namespace lowrank
