// NF4 matrices in safetensors files as bitsandbytes writes them: several tensors for a matrix.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lowrank/io/json_reader.hpp"
#include "lowrank/io/python_json.hpp"
#include "lowrank/io/quantization_config.hpp"
#include "lowrank/io/safetensors_model.hpp"
#include "lowrank/io/tensor_file.hpp"
#include "lowrank/io/tensor_source.hpp"
#include "lowrank/tensor/nf4_weight.hpp"

namespace lowrank {

namespace detail {

inline constexpr const char* nf4_state = ".quant_state.bitsandbytes__nf4";

/// The names of types in torch.
inline std::string_view torch_name(DType type) {
    return type == DType::bf16 ? "bfloat16" : type == DType::f16 ? "float16" : "float32";
}

/// The entry's bytes as U8, whatever type it has in the file: bitsandbytes can store codes as other types.
inline Tensor<std::uint8_t> bytes_of(const TensorEntry& entry, std::int64_t expected, const Shape& shape) {
    if (static_cast<std::int64_t>(entry.bytes.size()) != expected) {
        throw FileError(concat(tensor_in_file(entry), ": found ", entry.bytes.size(), " bytes, expected ", expected));
    }
    return Tensor<std::uint8_t>::map(reinterpret_cast<const std::uint8_t*>(entry.bytes.data()), shape, entry.file);
}

inline Tensor<float> floats_of(const TensorEntry& entry, std::int64_t count) {
    if (entry.dtype == DType::f32) {
        require_shape(entry, {count});
        return tensor_as_stored<float, Cpu>(entry, {count});
    }
    return load_values<float, Cpu>(entry, {count});
}

} // namespace detail

/// The names of the tensors that belong to the NF4 matrix `key` beside itself; empty where `key` is no such matrix.
inline std::vector<std::string> nf4_companions(const SafetensorsModel& file, const std::string& key) {
    std::vector<std::string> names;
    if (file.contains(key + detail::nf4_state)) {
        for (const char* suffix : {".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", detail::nf4_state}) {
            if (file.contains(key + suffix)) {
                names.push_back(key + suffix);
            }
        }
    }
    return names;
}

/// The NF4 matrix `key`, its codes and scales mapped. `orientation` is the one in which a dense copy is saved: in NF4 a
/// matrix is always stored [out, in]. Throws FileError, naming file and tensor, for parts that are missing, of another
/// size or type, for a matrix that is not [out, in], and for settings that are not supported.
inline std::shared_ptr<const Nf4Weight<Cpu>> load_nf4_weight(const SafetensorsModel& file, const std::string& key,
                                                             std::int64_t out, std::int64_t in,
                                                             Orientation orientation) {
    const TensorEntry& entry = file.at(key + detail::nf4_state);
    const std::string_view text(reinterpret_cast<const char*>(entry.bytes.data()), entry.bytes.size());
    const std::string where = detail::tensor_in_file(entry);
    JsonReader state(parse_json(text, where), where);
    detail::require_setting(state, "quant_type", "nf4");
    state.get_integer("blocksize", nf4_block, nf4_block);
    const json* shape = state.find("shape");
    if (shape == nullptr || *shape != json({out, in})) {
        state.fail("shape", shape == nullptr ? "nothing" : shape->dump().substr(0, 100), json({out, in}).dump());
    }
    Nf4Parts<Cpu> parts;
    const std::string type = state.get_string("dtype");
    parts.type = type == "bfloat16" ? DType::bf16 : type == "float16" ? DType::f16 : DType::f32;
    if (type != detail::torch_name(parts.type)) {
        state.fail("dtype", in_quotes(type), "\"float32\", \"bfloat16\" or \"float16\"");
    }
    const Tensor<float> book = detail::floats_of(file.at(key + ".quant_map"), 16);
    for (std::size_t i = 0; i < nf4_values.size(); ++i) {
        if (!(std::abs(book.data()[i] - nf4_values[i]) <= 1e-6f)) {
            throw FileError(concat(detail::tensor_in_file(file.at(key + ".quant_map")), ": found ", book.data()[i],
                                   " for code ", i, ", expected NF4's ", nf4_values[i]));
        }
    }
    const std::int64_t blocks = nf4_blocks(out * in);
    parts.codes = detail::bytes_of(file.at(key), nf4_bytes(out * in), {nf4_bytes(out * in), 1});
    const TensorEntry& absmax = file.at(key + ".absmax");
    if (state.has("nested_blocksize")) {
        state.get_integer("nested_blocksize", nested_block, nested_block);
        detail::require_setting(state, "nested_dtype", "float32");
        parts.offset = static_cast<float>(state.get_number("nested_offset"));
        parts.absmax_codes = detail::bytes_of(absmax, blocks, {blocks});
        parts.nested_absmax = detail::floats_of(file.at(key + ".nested_absmax"), nested_blocks(blocks));
        parts.nested_map = detail::floats_of(file.at(key + ".nested_quant_map"), 256);
    } else {
        parts.absmax = detail::floats_of(absmax, blocks);
    }
    return std::make_shared<Nf4Weight<Cpu>>(std::move(parts), out, in, orientation);
}

/// A matrix of a file quantized to NF4 without ever being in memory as a whole: the file's pages are dropped.
inline std::shared_ptr<const Nf4Weight<Cpu>> load_quantized(const TensorEntry& entry, std::int64_t out, std::int64_t in,
                                                            Orientation orientation, const Nf4Options& options) {
    const auto weight = Nf4Weight<Cpu>::quantized(*load_weight<Cpu>(entry, out, in, orientation), options);
    detail::drop_pages(entry, entry.bytes);
    return weight;
}

/// The tensors of an NF4 matrix called `key`, as bitsandbytes' state_dict has them.
inline std::vector<TensorSource> nf4_sources(const std::string& key,
                                             const std::shared_ptr<const Nf4Weight<Cpu>>& weight) {
    std::vector<TensorSource> sources;
    const auto add = [&]<class T>(const char* suffix, const Tensor<T>& values) {
        sources.push_back(detail::stored_source(key + suffix, values));
    };
    const Nf4Parts<Cpu>& parts = weight->parts();
    std::string state =
        concat("{\"quant_type\": \"nf4\", \"blocksize\": ", nf4_block, ", \"dtype\": \"",
               detail::torch_name(parts.type), "\", \"shape\": [", weight->out(), ", ", weight->in(), "]");
    add("", parts.codes);
    add(".quant_map", Tensor<float>::map(nf4_values.data(), {16}, nullptr));
    if (parts.is_nested()) {
        add(".absmax", parts.absmax_codes);
        add(".nested_absmax", parts.nested_absmax);
        add(".nested_quant_map", parts.nested_map);
        state +=
            concat(", \"nested_blocksize\": ", nested_block, ", \"nested_dtype\": \"float32\", \"nested_offset\": ",
                   detail::python_repr(static_cast<double>(parts.offset)));
    } else {
        add(".absmax", parts.absmax);
    }
    state += "}";
    const std::vector<std::uint8_t> bytes(state.begin(), state.end());
    add(detail::nf4_state, Tensor<std::uint8_t>::from(bytes, {static_cast<std::int64_t>(bytes.size())}));
    return sources;
}

/// The NF4 weight in a slot; null where it holds something else.
template <class C, DeviceTag D>
std::shared_ptr<const Nf4Weight<Cpu>> nf4_weight_of([[maybe_unused]] const WeightSlot<C, D>& slot) {
    if constexpr (std::same_as<D, Cpu>) {
        return std::dynamic_pointer_cast<const Nf4Weight<Cpu>>(slot.frozen());
    } else {
        return nullptr;
    }
}

/// Adds what a slot holds to the tensors of a file: NF4 as bitsandbytes writes it, anything else as tensor_source does.
template <class C, DeviceTag D>
void append_sources(std::vector<TensorSource>& sources, const std::string& key, const WeightSlot<C, D>& slot) {
    if (const auto nf4 = nf4_weight_of(slot)) {
        const std::vector<TensorSource> parts = nf4_sources(key, nf4);
        sources.insert(sources.end(), parts.begin(), parts.end());
    } else {
        sources.push_back(tensor_source(key, slot));
    }
}
template <class C, DeviceTag D>
void append_sources(std::vector<TensorSource>& sources, const std::string& key, const Tensor<C, D>& values) {
    sources.push_back(tensor_source(key, values));
}

} // namespace lowrank
