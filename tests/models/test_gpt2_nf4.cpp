// GPT-2 in NF4: it computes what its decoded matrices compute, forward and backward, and its files are bitsandbytes'.

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "io/temporary_directory.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"
#include "models_testing.hpp"
#include "random_tensor.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

using Slot = WeightSlot<float, Cpu>;

const Nf4Options every_option[] = {{false, DType::f32}, {true, DType::bf16}, {true, DType::f16}, {true, {}}};

/// A fixture's model in NF4, and the same numbers in dense matrices.
Gpt2<float> quantized_model(const std::string& name, const Nf4Options& options) {
    LoadOptions load;
    load.nf4 = options;
    return load_gpt2<float>(fixture(name), load);
}
std::shared_ptr<const Weight<Cpu>> decoded(const Weight<Cpu>& weight) {
    return std::make_shared<DenseWeight<float, Cpu>>(weight.dense_copy<float>(), weight.orientation());
}
Gpt2<float> decoded(Gpt2<float> model) {
    for_each<Slot>(model, [](const std::string&, Slot& slot) { slot = decoded(*slot.frozen()); });
    return model;
}

Tensor<std::int32_t> some_ids(std::int64_t rows, std::int64_t length) {
    std::vector<std::int32_t> ids;
    for (std::int64_t i = 0; i < rows * length; ++i) {
        ids.push_back(static_cast<std::int32_t>(i * 7 % 41));
    }
    return Tensor<std::int32_t>::from(ids, {rows, length});
}

std::vector<float> logits(const Gpt2<float>& model, const Tensor<std::int32_t>& ids) {
    const NoGrad no_grad;
    return model.logits(model.hidden(ids)).to_vector();
}

/// x·Wᵀ and its gradient, as floats.
template <class T>
std::vector<float> product_and_gradient(std::int64_t rows, const std::shared_ptr<const Weight<Cpu>>& weight) {
    Rng rng(1);
    const Tensor<T> x = leaf(random_tensor<T>({rows, weight->in()}, rng));
    const Tensor<T> y = linear(x, WeightSlot<compute_t<T>, Cpu>(weight));
    Gradients gradients;
    backward(y, random_tensor<T>(y.shape(), rng), gradients);
    std::vector<float> both;
    for (const Tensor<T>& part : {y.detach(), *gradients.find(x)}) {
        for (const T value : part.to_vector()) {
            both.push_back(convert<float>(value));
        }
    }
    return both;
}

/// The first `count` numbers differ by at most `tolerance` times the largest of them; the others have the same bits.
void check_alike(const std::vector<float>& found, const std::vector<float>& expected, std::size_t count,
                 float tolerance) {
    REQUIRE(found.size() == expected.size());
    float largest = 0;
    for (std::size_t i = 0; i < count; ++i) {
        largest = std::max(largest, std::abs(expected[i]));
    }
    for (std::size_t i = 0; i < found.size(); ++i) {
        REQUIRE(std::abs(found[i] - expected[i]) <= (i < count ? tolerance * largest : 0));
    }
}

const Nf4Parts<Cpu>& parts_of(const WeightSlot<float, Cpu>& slot) {
    const auto nf4 = nf4_weight_of(slot);
    REQUIRE(nf4 != nullptr);
    return nf4->parts();
}

/// The tensors of a model directory's file, by name.
std::map<std::string, std::string> tensors_in(const std::filesystem::path& directory) {
    std::map<std::string, std::string> tensors;
    const auto file = SafetensorsFile::open((directory / "model.safetensors").string());
    for (const auto& [key, entry] : file.tensors()) {
        std::string content = std::string(name_of(entry.dtype)) + " " + json(entry.shape).dump() + " ";
        content.append(reinterpret_cast<const char*>(entry.bytes.data()), entry.bytes.size());
        tensors[key] = content;
    }
    return tensors;
}

/// The message when a fixture in NF4 is loaded after a change of its config and its tensors.
template <class Change>
std::string message_after(const std::string& name, const Change& change) {
    const TemporaryDirectory directory;
    json config = read_json(fixture(name) / "config.json");
    const auto file = SafetensorsFile::open((fixture(name) / "model.safetensors").string());
    std::map<std::string, TensorSource> tensors;
    for (const auto& [key, entry] : file.tensors()) {
        tensors.emplace(key, TensorSource(key, entry.dtype, entry.shape, entry.bytes));
    }
    change(config, tensors);
    std::vector<TensorSource> sources;
    for (const auto& tensor : tensors) {
        sources.push_back(tensor.second);
    }
    write_file(directory / "config.json", config.dump());
    write_safetensors(directory / "model.safetensors", sources);
    return message_of<FileError>([&] { load_gpt2<float>(directory.path()); });
}

const std::string c_attn = "transformer.h.0.attn.c_attn.weight";

} // namespace

TEST_CASE("NF4 computes what decoded matrices compute, forward and backward, bit for bit") {
    // Inner sizes of which each is read in another way. Up to eight rows are summed in the order in which a matrix
    // lies.
    Rng rng(2);
    for (const std::int64_t in : {33, 36, 40, 320}) {
        for (const Orientation orientation : {Orientation::out_in, Orientation::in_out}) {
            const Shape shape = orientation == Orientation::out_in ? Shape{70, in} : Shape{in, 70};
            const DenseWeight<float, Cpu> dense(random_tensor<float>(shape, rng), orientation);
            for (const Nf4Options& options : every_option) {
                const auto nf4 = Nf4Weight<Cpu>::quantized(dense, options);
                for (const std::int64_t rows : {1, 4, 5, 9, 37}) {
                    CAPTURE(in);
                    CAPTURE(rows);
                    const bool is_along_codes = in % 64 == 0 && rows <= 4, is_few = rows <= 8;
                    const std::size_t summed_otherwise = is_few && orientation == Orientation::in_out
                                                             ? std::size_t(rows * (70 + in))
                                                         : is_along_codes ? std::size_t(rows * 70)
                                                                          : 0;
                    check_alike(product_and_gradient<float>(rows, nf4),
                                product_and_gradient<float>(rows, decoded(*nf4)), summed_otherwise, 2e-6f);
                    check_alike(product_and_gradient<bf16>(rows, nf4), product_and_gradient<bf16>(rows, decoded(*nf4)),
                                summed_otherwise, 8e-3f);
                }
            }
        }
    }
}

TEST_CASE("so does a model") {
    for (const char* name : {"quant_gpt2", "gpt2_untied", "gpt2_sharded"}) { // widths of 64, 40 and 36
        for (const Nf4Options& options : every_option) {
            const Gpt2<float> quantized = quantized_model(name, options), dense = decoded(quantized);
            const std::vector<float> of_one = logits(quantized, some_ids(1, 1));
            check_alike(of_one, logits(dense, some_ids(1, 1)), of_one.size(), 2e-6f); // in another order
            CHECK(logits(quantized, some_ids(3, 15)) == logits(dense, some_ids(3, 15)));
        }
    }
}

TEST_CASE(
    "what Transformers and bitsandbytes wrote gives their logits, and is what is made here of the same matrices") {
    for (const char* name : {"quant_gpt2_nf4", "quant_gpt2_bf16", "quant_gpt2_nested"}) {
        CAPTURE(name);
        Gpt2<float> theirs = load_gpt2<float>(fixture(name));
        CHECK(theirs.config.unknown_keys.empty());
        const auto reference = SafetensorsFile::open((fixture(name) / "reference.safetensors").string());
        const NoGrad no_grad;
        const Tensor<float> found = theirs.logits(theirs.hidden(ids_of(reference, "input_ids")));
        CHECK(relative_error(found, tensor_of(reference, "logits")) <= 2e-6);

        const bool nested = name == std::string("quant_gpt2_nested"), is_bf16 = name != std::string("quant_gpt2_nf4");
        const Gpt2<float> ours = quantized_model("quant_gpt2", {nested, is_bf16 ? DType::bf16 : DType::f32});
        const Nf4Parts<Cpu>& a = parts_of(ours.transformer.h[0].attn.c_attn.weight);
        const Nf4Parts<Cpu>& b = parts_of(theirs.transformer.h[0].attn.c_attn.weight);
        CHECK(a.codes.to_vector() == b.codes.to_vector());
        CHECK(a.type == b.type);
        REQUIRE(a.is_nested() == b.is_nested());
        if (nested) {
            CHECK(a.nested_map.to_vector() == b.nested_map.to_vector());
            CHECK(std::abs(a.offset - b.offset) <= 1e-7f);
        } else {
            CHECK(a.absmax.to_vector() == b.absmax.to_vector());
        }
        // Saved again it is the same file, and the same words in config.json.
        const TemporaryDirectory saved;
        save_gpt2(theirs, saved.path());
        CHECK(tensors_in(saved.path()).size() > 20);
        if (!is_bf16) { // plain tensors in BF16 are parameters here, and written as F32
            CHECK(tensors_in(saved.path()) == tensors_in(fixture(name)));
        }
        CHECK(read_json(saved / "config.json") == read_json(fixture(name) / "config.json"));
        CHECK(logits(load_gpt2<float>(saved.path()), some_ids(1, 16)) == logits(theirs, some_ids(1, 16)));
    }
}

TEST_CASE("a quantized model is a quarter of what it was; embeddings, norms and biases stay") {
    const auto bytes = [](Gpt2<float>& model) {
        std::size_t sum = 0;
        for_each<Slot>(model, [&](const std::string&, const Slot& slot) {
            sum += slot.orientation() == Orientation::in_out ? slot.frozen()->bytes() : 0;
        });
        return sum;
    };
    Gpt2<float> original = load_gpt2<float>(fixture("quant_gpt2"));
    Gpt2<float> plain = quantized_model("quant_gpt2", {}), nested = quantized_model("quant_gpt2", {true, {}});
    const std::size_t count = bytes(original) / 4;
    CHECK(bytes(plain) == count / 2 + count / 64 * 4);
    CHECK(bytes(nested) <= count / 2 + count / 64 + 4 * 4);
    CHECK(nested.transformer.wte.weight.frozen()->storage() == "F32");
    CHECK(nested.transformer.h[0].mlp.c_proj.weight.frozen()->storage() == "NF4");

    // Where layers are dense again, the file says which.
    Slot& merged = nested.transformer.h[0].attn.c_attn.weight;
    merged = decoded(*merged.frozen());
    const TemporaryDirectory saved;
    save_gpt2(nested, saved.path());
    const json settings = read_json(saved / "config.json").at("quantization_config");
    CHECK(settings.at("llm_int8_skip_modules") == json({"lm_head", "transformer.h.0.attn.c_attn"}));
    CHECK(settings.at("bnb_4bit_use_double_quant") == true);
    CHECK(logits(load_gpt2<float>(saved.path()), some_ids(1, 16)) == logits(nested, some_ids(1, 16)));
    Gpt2<float> dense = decoded(nested);
    save_gpt2(dense, saved.path());
    CHECK_FALSE(read_json(saved / "config.json").contains("quantization_config"));
}

TEST_CASE("files that cannot be right are refused by tensor and key") {
    using Tensors = std::map<std::string, TensorSource>;
    const auto with_setting = [](const char* key, const json& value) {
        return message_after("quant_gpt2_nf4",
                             [&](json& config, Tensors&) { config["quantization_config"][key] = value; });
    };
    CHECK(with_setting("quant_method", "gptq").find("quantization_config.quant_method': found \"gptq\"") !=
          std::string::npos);
    CHECK(with_setting("bnb_4bit_quant_type", "fp4").find("found \"fp4\", expected \"nf4\"") != std::string::npos);
    CHECK(with_setting("load_in_4bit", false).find("8-bit") != std::string::npos);

    const auto without = [](const char* fixture_name, const std::string& suffix) {
        return message_after(fixture_name, [&](json&, Tensors& tensors) { tensors.erase(c_attn + suffix); });
    };
    for (const char* suffix : {"", ".absmax", ".quant_map"}) {
        CHECK(without("quant_gpt2_nf4", suffix).find("found no tensor \"" + c_attn + suffix + '"') !=
              std::string::npos);
    }
    for (const char* suffix : {".absmax", ".nested_absmax", ".nested_quant_map"}) {
        CHECK(without("quant_gpt2_nested", suffix).find(c_attn + suffix) != std::string::npos);
    }
    // Without its state a matrix of codes is a matrix of the wrong shape.
    CHECK(without("quant_gpt2_nf4", ".quant_state.bitsandbytes__nf4").find("found shape [6144, 1]") !=
          std::string::npos);

    const auto with_state = [](const std::string& state) {
        return message_after("quant_gpt2_nf4", [&](json&, Tensors& tensors) {
            const std::string key = c_attn + ".quant_state.bitsandbytes__nf4";
            tensors.at(key) = TensorSource(key, DType::u8, {static_cast<std::int64_t>(state.size())},
                                           std::as_bytes(std::span(state)));
        });
    };
    const std::array<std::array<const char*, 2>, 7> states{{
        {R"({"quant_type": "fp4", "blocksize": 64, "dtype": "float32", "shape": [192, 64]})", "'quant_type'"},
        {R"({"quant_type": "nf4", "blocksize": 128, "dtype": "float32", "shape": [192, 64]})", "'blocksize'"},
        {R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float64", "shape": [192, 64]})", "'dtype'"},
        {R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [64, 192]})", "'shape'"},
        {R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float32"})", "'shape'"},
        {R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [192, 64], "nested_blocksize": 256})",
         "'nested_dtype'"},
        {R"({"quant_type": )", "line 1"},
    }};
    for (const auto& state : states) {
        CAPTURE(state[0]);
        CHECK(with_state(state[0]).find(state[1]) != std::string::npos);
    }
    const auto with_tensor = [](const std::string& suffix, DType type, std::vector<std::int64_t> shape,
                                const std::string& bytes) {
        return message_after("quant_gpt2_nf4", [&](json&, Tensors& tensors) {
            tensors.at(c_attn + suffix) = TensorSource(c_attn + suffix, type, shape, std::as_bytes(std::span(bytes)));
        });
    };
    CHECK(with_tensor("", DType::u8, {6143, 1}, std::string(6143, 'x')).find("found 6143 bytes, expected 6144") !=
          std::string::npos);
    CHECK(with_tensor(".absmax", DType::f32, {191}, std::string(764, '\0')).find("found shape [191]") !=
          std::string::npos);
    CHECK(with_tensor(".quant_map", DType::f32, {16}, std::string(64, '\0')).find("for code 0, expected NF4's -1") !=
          std::string::npos);
    // Codes stored as another type are codes.
    CHECK(with_tensor("", DType::bf16, {3072, 1}, std::string(6144, 'x')).empty());
}
