// Loading a GPT-2 from a Transformers directory, and saving it in the same format.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "lowrank/io/atomic_file.hpp"
#include "lowrank/io/bitsandbytes.hpp"
#include "lowrank/io/python_json.hpp"
#include "lowrank/io/safetensors_model.hpp"
#include "lowrank/io/safetensors_writer.hpp"
#include "lowrank/io/tensor_file.hpp"
#include "lowrank/io/tensor_source.hpp"
#include "lowrank/models/gpt2.hpp"

namespace lowrank {

namespace detail {

/// The shape of a GPT-2 matrix as [out, in] and how it is stored, by its path.
struct Gpt2Matrix {
    std::int64_t out, in;
    Orientation orientation;
};

inline Gpt2Matrix gpt2_matrix(const Gpt2Config& config, const std::string& path) {
    const std::int64_t width = config.n_embd;
    const auto ends_with = [&](const char* suffix) { return path.ends_with(suffix); };
    if (ends_with("wte.weight") || ends_with("lm_head.weight")) {
        return {config.vocab_size, width, Orientation::out_in};
    }
    if (ends_with("wpe.weight")) {
        return {config.n_positions, width, Orientation::out_in};
    }
    if (ends_with("attn.c_attn.weight")) {
        return {3 * width, width, Orientation::in_out};
    }
    if (ends_with("mlp.c_fc.weight")) {
        return {config.n_inner, width, Orientation::in_out};
    }
    if (ends_with("mlp.c_proj.weight")) {
        return {width, config.n_inner, Orientation::in_out};
    }
    return {width, width, Orientation::in_out}; // attn.c_proj
}

inline std::int64_t gpt2_vector(const Gpt2Config& config, const std::string& path) {
    if (path.ends_with("attn.c_attn.bias")) {
        return 3 * config.n_embd;
    }
    return path.ends_with("mlp.c_fc.bias") ? config.n_inner : config.n_embd;
}

/// Old checkpoints hold the causal mask as "h.0.attn.bias" and its fill value as "h.0.attn.masked_bias".
inline bool is_gpt2_mask_buffer(const std::string& key) {
    return key.ends_with(".attn.bias") || key.ends_with(".attn.masked_bias");
}

/// Says in a model's config.json which of its linear layers are in NF4, or that none is. A type of activations that
/// stands there stays.
template <class T, DeviceTag D>
void describe_quantization(Gpt2<T, D>& model, json& config) {
    std::vector<std::string> dense{"lm_head"};
    bool quantized = false, nested = false;
    for_each<WeightSlot<compute_t<T>, D>>(model, [&](const std::string& path, const WeightSlot<compute_t<T>, D>& slot) {
        if (const auto nf4 = nf4_weight_of(slot)) {
            quantized = true;
            nested = nested || nf4->parts().is_nested();
        } else if (slot.orientation() == Orientation::in_out) {
            dense.push_back(path.substr(0, path.rfind('.')));
        }
    });
    const json old = config.value("quantization_config", json::object());
    config.erase("quantization_config");
    if (quantized) {
        const bool all = dense.size() == 1; // but the head: the default
        config["quantization_config"] = quantization_config(old.value("bnb_4bit_compute_dtype", "float32"), nested,
                                                            all ? std::vector<std::string>() : dense);
    }
}

} // namespace detail

/// Loads config.json and the safetensors file or shards of `directory`. Keys may lack the "transformer." prefix; mask
/// buffers are ignored; a tied head may be present or not. Matrices stay in the file's type, mapped, unless `options`
/// ask for their conversion; those in bitsandbytes' NF4 stay so; all are frozen. Throws FileError, naming file and key,
/// for what is missing, unexpected, or of the wrong shape or type.
template <class T, DeviceTag D = Cpu>
Gpt2<T, D> load_gpt2(const std::filesystem::path& directory, const LoadOptions& options = {}) {
    Gpt2<T, D> model(read_gpt2_config(directory));
    const SafetensorsModel file = SafetensorsModel::open(directory);
    const std::string prefix = "transformer.";
    std::vector<std::string> used;
    const auto entry_of = [&](const std::string& path) -> const TensorEntry& {
        const bool bare = path.starts_with(prefix) && !file.contains(path) && file.contains(path.substr(prefix.size()));
        used.push_back(bare ? path.substr(prefix.size()) : path);
        return file.at(used.back());
    };
    for_each_parameter<compute_t<T>, D>(model, [&]<class Field>(const std::string& path, Field& field) {
        if (path == "lm_head.bias") {
            return; // GPT-2's head has none
        }
        if constexpr (std::is_same_v<Field, WeightSlot<compute_t<T>, D>>) {
            const detail::Gpt2Matrix m = detail::gpt2_matrix(model.config, path);
            const TensorEntry& entry = entry_of(path);
            const std::vector<std::string> companions = nf4_companions(file, entry.name);
            used.insert(used.end(), companions.begin(), companions.end());
            if constexpr (std::same_as<D, Cpu>) { // NF4 has no kernels elsewhere
                const bool is_linear = m.orientation == Orientation::in_out;
                if (!companions.empty()) {
                    field = load_nf4_weight(file, entry.name, m.out, m.in, m.orientation);
                    return;
                }
                if (options.nf4 && is_linear) {
                    field = load_quantized(entry, m.out, m.in, m.orientation, *options.nf4);
                    return;
                }
            }
            field = load_weight<T, D>(entry, m.out, m.in, m.orientation, options);
        } else {
            field = load_values<compute_t<T>, D>(entry_of(path), {detail::gpt2_vector(model.config, path)});
        }
    });
    std::sort(used.begin(), used.end());
    for (const std::string& key : file.keys()) {
        const bool tied_head = model.config.tie_word_embeddings && key == "lm_head.weight";
        if (!std::binary_search(used.begin(), used.end(), key) && !detail::is_gpt2_mask_buffer(key) && !tied_head) {
            throw FileError(concat(file.origin(key), ": tensor '", key, "' is unexpected in a GPT-2 of ",
                                   model.config.n_layer, " layers"));
        }
    }
    return model;
}

/// Writes config.json and model.safetensors into `directory` as Transformers does: plain types keep theirs, NF4 is
/// written as bitsandbytes does, biases and norms, which a model has in F32, in `vectors`, F32 or BF16; a tied matrix
/// is written once. Throws FileError; each file appears complete or not at all.
template <class T, DeviceTag D>
void save_gpt2(Gpt2<T, D>& model, const std::filesystem::path& directory, DType vectors = DType::f32) {
    using Vector = Tensor<compute_t<T>, D>;
    std::vector<TensorSource> tensors;
    for_each_parameter<compute_t<T>, D>(model, [&]<class Field>(const std::string& path, const Field& field) {
        if (!field.defined()) {
            return;
        }
        if constexpr (std::is_same_v<Field, Vector>) {
            if (vectors == DType::bf16) {
                tensors.push_back(detail::stored_source(path, cast<bf16>(field)));
                return;
            }
        }
        append_sources(tensors, path, field);
    });
    std::filesystem::create_directories(directory);
    write_safetensors(directory / "model.safetensors", tensors, {{"format", "pt"}});
    json config = model.config.document;
    detail::describe_quantization(model, config);
    write_atomically(directory / "config.json", to_python_json(config) + "\n");
}

} // namespace lowrank
