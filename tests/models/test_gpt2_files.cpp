// GPT-2's files: what is saved is what Transformers writes, and what cannot be right is refused by file and key.

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
#include <memory>

#include "io/temporary_directory.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"
#include "models_testing.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

/// The bits of every parameter, as float (in which all stored types are exact), and the type of every matrix.
std::map<std::string, std::string> contents(Gpt2<float>& model) {
    std::map<std::string, std::string> found;
    for_each_parameter(model, [&]<class Field>(const std::string& path, Field& field) {
        if (!field.defined()) {
            return;
        }
        std::vector<float> values;
        if constexpr (std::is_same_v<Field, WeightSlot<float, Cpu>>) {
            REQUIRE(field.frozen() != nullptr);
            values = field.frozen()->template dense_copy<float>().to_vector();
            found[path + " type"] = field.frozen()->storage();
        } else {
            values = field.to_vector();
        }
        found[path].assign(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    });
    return found;
}

/// Saves, unless the user wants to keep the files for tests/scripts/gpt2_check_saved.py.
std::filesystem::path output_for(const TemporaryDirectory& directory, const std::string& name) {
    const char* kept = std::getenv("LOWRANK_TEST_OUTPUT");
    return kept ? std::filesystem::path(kept) / name : directory / name;
}

using Tensors = std::vector<TensorSource>;

/// The message when gpt2_tied is loaded after a change of its config and its tensors.
template <class Change>
std::string message_after(const Change& change) {
    const TemporaryDirectory directory;
    json config = read_json(fixture("gpt2_tied") / "config.json");
    const auto file = SafetensorsFile::open((fixture("gpt2_tied") / "model.safetensors").string());
    Tensors tensors;
    for (const auto& [key, entry] : file.tensors()) {
        tensors.emplace_back(key, entry.dtype, entry.shape, entry.bytes);
    }
    change(config, tensors);
    write_file(directory / "config.json", config.dump());
    write_safetensors(directory / "model.safetensors", tensors);
    return message_of<FileError>([&] { load_gpt2<float>(directory.path()); });
}

TensorSource& named(Tensors& tensors, const std::string& name) {
    const auto it = std::find_if(tensors.begin(), tensors.end(), [&](const TensorSource& t) { return t.name == name; });
    REQUIRE(it != tensors.end());
    return *it;
}

void check_mentions(const std::string& message, const std::vector<std::string>& parts) {
    CAPTURE(message);
    for (const std::string& part : parts) {
        CAPTURE(part);
        CHECK(message.find(part) != std::string::npos);
    }
}

} // namespace

TEST_CASE("a model that is saved and loaded again has the same bits, under Transformers' keys") {
    const TemporaryDirectory directory;
    for (const std::string& name : fixtures_with("gpt2_", "reference.safetensors")) {
        CAPTURE(name);
        Gpt2<float> model = load_gpt2<float>(fixture(name));
        const std::filesystem::path out = output_for(directory, name);
        save_gpt2(model, out);
        Gpt2<float> again = load_gpt2<float>(out);
        CHECK(contents(again) == contents(model));

        const auto reference = SafetensorsFile::open((fixture(name) / "reference.safetensors").string());
        std::vector<std::string> expected;
        for (const std::string& key : reference.keys()) {
            if (key.starts_with("grad.")) {
                expected.push_back(key.substr(5));
            }
        }
        const auto saved = SafetensorsFile::open((out / "model.safetensors").string());
        CHECK(saved.keys() == expected);
        CHECK(saved.metadata() == std::map<std::string, std::string>{{"format", "pt"}});
        CHECK(read_json(out / "config.json") == read_json(fixture(name) / "config.json"));
    }
}

TEST_CASE("the files of fp32 models are Transformers' own, byte for byte, trained or not") {
    for (const std::string name : {"gpt2_tied", "gpt2_untied", "gpt2_relu", "gpt2_inner"}) {
        CAPTURE(name);
        Gpt2<float> model = load_gpt2<float>(fixture(name));
        for (const bool trainable : {false, true}) {
            for_each_parameter(model, [&](const std::string&, auto& field) { set_trainable(field, trainable); });
            const TemporaryDirectory out;
            save_gpt2(model, out.path());
            for (const char* file : {"config.json", "model.safetensors"}) {
                CHECK(file_bytes(out / file) == file_bytes(fixture(name) / file));
            }
        }
    }
}

TEST_CASE("a model can be saved over the files that it is mapped from") {
    const TemporaryDirectory directory;
    std::filesystem::copy(fixture("gpt2_untied"), directory.path());
    Gpt2<float> model = load_gpt2<float>(directory.path());
    const auto before = contents(model);
    save_gpt2(model, directory.path());
    CHECK(contents(model) == before);
    Gpt2<float> again = load_gpt2<float>(directory.path());
    CHECK(contents(again) == before);
}

TEST_CASE("settings that cannot be right are refused by file and key") {
    const auto with = [](const char* key, const json& value) {
        return message_after([&](json& config, Tensors&) { config[key] = value; });
    };
    check_mentions(with("n_head", 5), {"config.json", "n_head", "5", "32"});
    check_mentions(with("n_head", 0), {"config.json", "n_head", "0"});
    check_mentions(with("n_layer", "two"), {"config.json", "n_layer", "two"});
    check_mentions(with("vocab_size", -1), {"config.json", "vocab_size", "-1"});
    check_mentions(with("activation_function", "swish"), {"config.json", "activation_function", "swish", "gelu_new"});
    check_mentions(with("add_cross_attention", true), {"config.json", "add_cross_attention", "true"});
    check_mentions(with("model_type", "llama"), {"config.json", "model_type", "llama", "gpt2"});
    check_mentions(with("layer_norm_epsilon", "small"), {"config.json", "layer_norm_epsilon"});
    check_mentions(with("attn_pdrop", 1.5), {"config.json", "attn_pdrop", "1.5"});
    CHECK(with("a_key_of_tomorrow", 1) == "");
}

TEST_CASE("tensors that are missing, unexpected, or of another shape or type are refused by file and key") {
    const std::string key = "transformer.h.1.mlp.c_fc.weight", vector = "transformer.h.0.ln_1.bias";
    for (const std::string& name : {key, vector}) {
        check_mentions(message_after([&](json&, Tensors& tensors) { named(tensors, name).name += "_moved"; }), {name});
        check_mentions(message_after([&](json&, Tensors& tensors) { named(tensors, name).dtype = DType::i32; }),
                       {"model.safetensors", name, "I32", "F32"});
    }
    check_mentions(message_after([&](json&, Tensors& tensors) {
                       named(tensors, key).shape = {128, 32};
                   }),
                   {"model.safetensors", key, "[128, 32]", "[32, 128]"});
    check_mentions(message_after([&](json&, Tensors& tensors) {
                       named(tensors, vector).shape = {1, 32};
                   }),
                   {"model.safetensors", vector, "[1, 32]", "[32]"});
    check_mentions(message_after([&](json& config, Tensors&) { config["n_layer"] = 1; }),
                   {"model.safetensors", "transformer.h.1.", "unexpected"});
    check_mentions(message_after([&](json& config, Tensors&) { config["n_layer"] = 3; }), {"transformer.h.2."});
    check_mentions(message_after([&](json& config, Tensors&) { config["tie_word_embeddings"] = false; }),
                   {"lm_head.weight"});
}

TEST_CASE("directories without a config or without weights are refused by name") {
    const TemporaryDirectory directory;
    const auto load = [&] { load_gpt2<float>(directory.path()); };
    check_mentions(message_of<FileError>(load), {(directory / "config.json").string()});
    std::filesystem::copy_file(fixture("gpt2_tied") / "config.json", directory / "config.json");
    check_mentions(message_of<FileError>(load), {directory.path().string(), "model.safetensors"});
}

TEST_CASE("ids, labels and rows that do not fit are refused") {
    const Gpt2<float> model = load_gpt2<float>(fixture("gpt2_tied"));
    using Ids = Tensor<std::int32_t>;
    const Ids fine = Ids::from({1, 2, 3, 4}, {2, 2});
    check_mentions(message_of<ShapeError>([&] { model.hidden(Ids::from({1, 2, 96, 4}, {2, 2})); }), {"96", "95"});
    check_mentions(message_of<ShapeError>([&] { model.hidden(Ids::from({-1, 2, 3, 4}, {2, 2})); }), {"-1", "95"});
    check_mentions(message_of<ShapeError>([&] { model.hidden(Ids::zeros({1, 33})); }), {"33", "n_positions", "32"});
    check_mentions(message_of<ShapeError>([&] { model.hidden(Ids::zeros({4})); }), {"[batch, length]", "[4]"});
    check_mentions(message_of<OptionError>([&] { model.loss(fine, Ids::from({0, 96, 0, 0}, {2, 2})); }), {"96", "95"});
    check_mentions(message_of<OptionError>([&] { model.loss(fine, Ids::from({0, -1, 0, 0}, {2, 2})); }), {"-1", "95"});
    check_mentions(message_of<ShapeError>([&] { model.loss(fine, Ids::zeros({2, 3})); }), {"[2, 3]", "[2, 2]"});
    ForwardContext<Cpu> context;
    context.document_start = Ids::zeros({2, 1});
    check_mentions(message_of<ShapeError>([&] { model.loss(fine, fine, context); }), {"[2, 1]", "[2, 2]"});
    KeyValueCaches<float, Cpu> none;
    check_mentions(message_of<ShapeError>([&] {
                       model.hidden(fine, {}, std::array{&none, &none});
                   }),
                   {"0 caches", "2 layers"});
    check_mentions(message_of<ShapeError>([&] { model.hidden(fine, {}, std::array{&none}); }), {"1 texts", "[2, 2]"});
}
