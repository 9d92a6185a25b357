// Generated adapters of every method that PEFT saved: the same logits as there, the same files back, merges, and what
// is refused in their files.

#include <cstdlib>
#include <map>

#include "io/temporary_directory.hpp"
#include "lowrank/adapters/merge.hpp"
#include "lowrank/adapters/peft_files.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"
#include "models_testing.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

using Model = Gpt2<float>;

/// One of PEFT's adapters: adapters_generated holds them all in a few files.
struct Generated {
    std::string name, base;
    json config;
};

std::filesystem::path folder() {
    return fixture("adapters_generated");
}

std::vector<Generated> all_generated() {
    std::vector<Generated> all;
    for (const json& entry : read_json(folder() / "configs.json")) {
        all.push_back({entry.at("name"), entry.at("base"), entry.at("config")});
    }
    return all;
}

const Generated& generated(const std::string& name) {
    static const std::vector<Generated> all = all_generated();
    const auto found = std::find_if(all.begin(), all.end(), [&](const Generated& one) { return one.name == name; });
    REQUIRE(found != all.end());
    return *found;
}

Model load_base(const std::string& name) {
    return load_gpt2<float>(folder() / name);
}

using Tensors = std::map<std::string, Tensor<float>>;

/// Its tensors, by PEFT's keys.
Tensors tensors_of(const std::string& name) {
    static const SafetensorsFile file = SafetensorsFile::open((folder() / "adapters.safetensors").string());
    Tensors tensors;
    for (const std::string& key : file.keys()) {
        if (key.starts_with(name + "/")) {
            tensors.emplace(key.substr(name.size() + 1), tensor_of(file, key));
        }
    }
    return tensors;
}

void write_adapter(const std::filesystem::path& directory, const json& config, const Tensors& tensors) {
    std::filesystem::create_directories(directory);
    write_file(directory / "adapter_config.json", to_python_json(config));
    std::vector<TensorSource> sources;
    for (const auto& [key, values] : tensors) {
        sources.push_back(tensor_source(key, values));
    }
    write_safetensors(directory / "adapter_model.safetensors", sources, {{"format", "pt"}});
}

Tensor<float> logits_of(const Model& model) {
    const NoGrad no_grad;
    const auto file = SafetensorsFile::open((folder() / "logits.safetensors").string());
    return model.logits(model.hidden(ids_of(file, "input_ids")));
}

/// A number or a name alone says the same as a list of it.
json with_lists(json config) {
    for (const char* key : {"layers_to_transform", "layers_pattern"}) {
        if (config.contains(key) && !config[key].is_null() && !config[key].is_array()) {
            config[key] = json::array({config[key]});
        }
    }
    return config;
}

/// Keeps an adapter for peft_generated.py check, where the environment names a directory.
void keep(Model& model, const AdapterConfig& config, const std::string& name) {
    if (const char* directory = std::getenv("LOWRANK_TEST_OUTPUT")) {
        const std::filesystem::path place = std::filesystem::path(directory) / name;
        save_adapter<float, Cpu>(model, config, place);
        write_safetensors(place / "logits.safetensors", {tensor_source("logits", logits_of(model))}, {});
    }
}

/// The message with which an adapter is refused; and the model is as it was.
std::string refusal(const std::string& name, const std::function<void(json&, Tensors&)>& change,
                    const std::string& base = "base") {
    json config = generated(name).config;
    Tensors tensors = tensors_of(name);
    change(config, tensors);
    const TemporaryDirectory directory;
    write_adapter(directory.path(), config, tensors);
    Model model = load_base(base);
    const std::vector<float> before = logits_of(model).to_vector();
    const std::string message = message_of<FileError>([&] { load_adapter<float, Cpu>(model, directory.path()); });
    if (!message.empty()) {
        CHECK(detail::adapted_layers<float, Cpu>(model).empty());
        CHECK(trainable_tensors<float, Cpu>(model).empty());
        CHECK(logits_of(model).to_vector() == before);
    }
    return message;
}

void says(const std::string& message, std::initializer_list<const char*> parts) {
    CAPTURE(message);
    for (const char* part : parts) {
        CHECK_MESSAGE(message.find(part) != std::string::npos, part);
    }
}

} // namespace

TEST_CASE("generated adapters give PEFT's logits, its files back, and the same when merged") {
    const auto logits = SafetensorsFile::open((folder() / "logits.safetensors").string());
    std::map<std::string, Model> bases;
    bases.emplace("base", load_base("base"));
    bases.emplace("untied", load_base("untied"));
    const std::vector<Generated> all = all_generated();
    CHECK(all.size() >= 60);
    for (const Generated& one : all) {
        CAPTURE(one.name);
        const Tensors tensors = tensors_of(one.name);
        const TemporaryDirectory source, copy;
        write_adapter(source.path(), one.config, tensors);
        Model model = bases.at(one.base);
        const AdapterConfig config = load_adapter<float, Cpu>(model, source.path());
        CHECK(targets(config).unknown_keys.empty());
        const Tensor<float> adapted = logits_of(model);
        CHECK(relative_error(adapted, tensor_of(logits, one.name)) <= 1e-5);

        save_adapter<float, Cpu>(model, config, copy.path());
        const auto saved = SafetensorsFile::open((copy / "adapter_model.safetensors").string());
        std::size_t compared = 0;
        for (const auto& entry : tensors) {
            if (detail::is_second_bias(targets(config), entry.first)) {
                continue;
            }
            ++compared;
            CAPTURE(entry.first);
            CHECK(tensor_of(saved, entry.first).shape() == entry.second.shape());
            CHECK(tensor_of(saved, entry.first).to_vector() == entry.second.to_vector());
        }
        CHECK(saved.keys().size() == compared);
        json expected = with_lists(one.config), written = read_json(copy / "adapter_config.json");
        bool conv1d = false;
        for_each<Linear<float>>(model, [&](const std::string&, const Linear<float>& layer) {
            conv1d = conv1d || layer.adapter != nullptr;
        });
        if (model.lm_head.adapter || !conv1d) { // PEFT writes what its last layer is, or what it was told
            expected.erase("fan_in_fan_out");
            written.erase("fan_in_fan_out");
        }
        CHECK(written == expected);
        keep(model, config, one.name);

        MergedAdapters merged = merge<float, Cpu>(model);
        CHECK(relative_error(logits_of(model), adapted) <= 1e-5);
        merged.unmerge();
        CHECK(logits_of(model).to_vector() == adapted.to_vector());

        // The same settings started here, and moved off their start. Copies of a model would share its biases.
        Model fresh = load_base(one.base);
        attach_adapter<float, Cpu>(fresh, config, 7);
        Rng rng(8);
        for (const auto& tensor : trainable_tensors<float, Cpu>(fresh)) {
            Tensor<float> live = tensor.values;
            for (std::int64_t i = 0; i < live.numel(); ++i) {
                live.mutable_data()[i] += 0.1f * static_cast<float>(rng.normal());
            }
        }
        save_adapter<float, Cpu>(fresh, config, copy.path());
        CHECK(SafetensorsFile::open((copy / "adapter_model.safetensors").string()).keys() == saved.keys());
        Model again = bases.at(one.base);
        load_adapter<float, Cpu>(again, copy.path());
        CHECK(logits_of(again).to_vector() == logits_of(fresh).to_vector());
        keep(fresh, config, one.name + "-new");
    }
}

TEST_CASE("new adapters of each method change nothing but where PEFT's start does") {
    Model base = load_base("base");
    const std::vector<float> before = logits_of(base).to_vector();
    LoraConfig lora, orthogonal, embedding, dora;
    orthogonal.init_lora_weights = LoraInit::orthogonal;
    embedding.target_modules = std::vector<std::string>{"wte", "wpe"};
    dora.use_dora = true;
    dora.target_modules = std::vector<std::string>{"wte", "wpe", "c_attn"};
    VeraConfig vera;
    vera.r = 5;
    vera.target_modules = ModuleSelection("all-linear");
    for (const AdapterConfig& config :
         std::vector<AdapterConfig>{lora, orthogonal, embedding, dora, vera, Ia3Config()}) {
        Model model = base;
        attach_adapter<float, Cpu>(model, config, 3);
        CHECK(relative_error(logits_of(model), Tensor<float>::from(before, logits_of(model).shape())) <= 1e-6);
    }
    Model model = base;
    attach_lora<float, Cpu>(model, orthogonal, 3); // neither factor is 0, and their product is
    for (const auto& tensor : trainable_tensors<float, Cpu>(model)) {
        CHECK(relative_error(tensor.values, Tensor<float>::zeros(tensor.values.shape())) > 1);
    }
    const std::vector<std::string> ia3 = attach_adapter<float, Cpu>(model, Ia3Config(), 0);
    CHECK(ia3.size() == 4); // PEFT's defaults for GPT-2: c_attn and mlp.c_proj
    CHECK(count_parameters<float, Cpu>(model).trainable == 2 * (36 + 20));
}

TEST_CASE("LoRA-FA trains B only, and keeps nothing for A") {
    LoraConfig config;
    config.freeze_a = true;
    config.init_lora_weights = LoraInit::random;
    Model model = load_base("base"), again = load_base("base");
    attach_lora<float, Cpu>(model, config, 1);
    for (const auto& tensor : trainable_tensors<float, Cpu>(model)) {
        CHECK(tensor.name.ends_with("lora_B.weight"));
    }
    const ParameterCounts counts = count_parameters<float, Cpu>(model);
    CHECK(counts.trainable == 2 * 36 * 8);
    CHECK(counts.all - counts.trainable - 2 * 12 * 8 == count_parameters<float, Cpu>(again).all);
    const TemporaryDirectory directory;
    save_adapter<float, Cpu>(model, config, directory.path()); // a LoRA like any other
    load_adapter<float, Cpu>(again, directory.path());
    CHECK(logits_of(again).to_vector() == logits_of(model).to_vector());
}

TEST_CASE("what does not fit is refused with file, key and reason, and nothing is loaded halfway") {
    CHECK(refusal(
              "vera-00", [](json&, Tensors&) {}, "untied")
              .empty());
    const std::string c_attn = "base_model.model.transformer.h.0.attn.c_attn.";
    says(refusal("vera-05", [](json&, Tensors& t) { t.erase("base_model.vera_A"); }),
         {"adapter_model.safetensors", "base_model.vera_A", "not in the file"});
    says(refusal("vera-05", [](json& c, Tensors&) { c["save_projection"] = false; }),
         {"adapter_config.json", "'save_projection'", "save_projection=True"});
    says(refusal("vera-05", [](json& c, Tensors&) { c["r"] = 0; }), {"adapter_config.json", "'r'", "0"});
    says(refusal("vera-05", [](json& c, Tensors&) { c["r"] = 3; }), {"vera_A", "[4, 12]", "[3, 12]"});
    says(refusal("vera-05", [&](json&, Tensors& t) { t.erase(c_attn + "vera_lambda_d"); }), {"vera_lambda_d"});
    says(refusal("vera-05", [](json& c, Tensors&) { c["bias"] = "lora_only"; }), {"'bias'", "\"vera_only\""});
    says(refusal("ia3-09", [&](json&, Tensors& t) { t[c_attn + "ia3_l"] = Tensor<float>::zeros({36}); }),
         {"ia3_l", "[36]", "[36, 1]"});
    says(refusal("ia3-09", [](json& c, Tensors&) { c["feedforward_modules"] = {"mlp.c_fc"}; }),
         {"adapter_config.json", "'feedforward_modules'", "target_modules"});
    says(refusal("ia3-09",
                 [](json& c, Tensors&) {
                     c["target_modules"] = {"c_attn", "mlp.c_proj", "wte"};
                 }),
         {"adapter_config.json", "'transformer.wte'", "no linear layer"});
    says(refusal("embedding-00", [](json& c, Tensors&) { c["lora_bias"] = true; }),
         {"adapter_config.json", "'transformer.wte'", "lora_bias"});
    says(refusal("embedding-00", [](json& c, Tensors&) { c["use_dora"] = true; }),
         {"adapter_model.safetensors", "transformer.wte.lora_magnitude_vector", "not in the file"});
    says(refusal("dora_embedding-06",
                 [](json&, Tensors& t) {
                     t["base_model.model.transformer.wte.lora_magnitude_vector"] = Tensor<float>::zeros({24});
                 }),
         {"lora_magnitude_vector", "[24]", "[12]"});
    says(refusal("embedding-00", [](json& c, Tensors&) { c["r"] = 2; }), {"lora_embedding_A", "[1, 24]", "[2, 24]"});
    says(refusal("lora-06", [](json& c, Tensors&) { c["peft_type"] = "FOURIERFT"; }),
         {"adapter_config.json", "'peft_type'", "\"FOURIERFT\"", "\"LORA\", \"VERA\", \"IA3\""});
    says(refusal("lora-06", [](json& c, Tensors&) { c["init_lora_weights"] = "pissa"; }), {"init_lora_weights"});
    // Beside the adapters: a bias that is missing is noticed before anything changes.
    says(refusal("lora-06", [&](json&, Tensors& t) { t.erase(c_attn + "base_layer.bias"); }), {"base_layer.bias"});
    says(refusal("lora-06", [](json&, Tensors& t) { t["base_model.model.x"] = Tensor<float>::zeros({1}); }),
         {"'base_model.model.x'", "unexpected"});
}

TEST_CASE("an adapter for another base, and one in PyTorch's own format, are refused with what helps") {
    const TemporaryDirectory directory;
    write_adapter(directory.path(), generated("lora-06").config, tensors_of("lora-06"));
    Model other = load_gpt2<float>(fixture("peft_base"));
    const auto refused = [&] {
        return message_of<FileError>([&] { load_adapter<float, Cpu>(other, directory.path()); });
    };
    says(refused(), {"lora_A.weight", "[5, 12]", "[5, 24]", "made for the model 'base'"});

    std::filesystem::rename(directory / "adapter_model.safetensors", directory / "adapter_model.bin");
    says(refused(), {"adapter_model.bin", "pickle", "save_file(torch.load("});
    std::filesystem::remove(directory / "adapter_model.bin");
    says(refused(), {"adapter_model.safetensors"});
}

TEST_CASE("settings that a method does not have are refused by name") {
    Model model = load_base("base");
    const auto refused = [&](const AdapterConfig& config) {
        const std::string message = message_of<OptionError>([&] { attach_adapter<float, Cpu>(model, config, 0); });
        CHECK(detail::adapted_layers<float, Cpu>(model).empty());
        return message;
    };
    LoraConfig embedding;
    embedding.target_modules = std::vector<std::string>{"wte"};
    embedding.lora_bias = true;
    says(refused(embedding), {"transformer.wte", "lora_bias"});
    LoraConfig odd;
    odd.r = 3;
    odd.init_lora_weights = LoraInit::orthogonal;
    says(refused(odd), {"'r'", "even"});
    VeraConfig vera;
    vera.exclude_modules = std::vector<std::string>{"c_attn"};
    says(refused(vera), {"exclude_modules", "VeRA"});
    vera = {};
    vera.vera_dropout = 1;
    says(refused(vera), {"vera_dropout"});
    vera = {};
    vera.r = 0;
    says(refused(vera), {"'r'", "1 or more"});
    vera = {};
    vera.target_modules = std::vector<std::string>{"wte"};
    says(refused(vera), {"transformer.wte", "no linear layer"});
    Ia3Config ia3;
    ia3.bias = BiasMode::all;
    says(refused(ia3), {"bias", "IA3"});
    ia3 = {};
    ia3.layers_to_transform = std::vector<std::int64_t>{1};
    says(refused(ia3), {"layers_to_transform", "IA3"});

    // Feed-forward modules that PEFT would not read back are written as paths.
    ia3 = {};
    ia3.target_modules = std::vector<std::string>{"c_proj"};
    attach_adapter<float, Cpu>(model, ia3, 0);
    const TemporaryDirectory directory;
    save_adapter<float, Cpu>(model, ia3, directory.path());
    const json saved = read_json(directory / "adapter_config.json");
    CHECK(saved.at("target_modules").size() == 4);
    CHECK(saved.at("feedforward_modules") == json({"transformer.h.0.mlp.c_proj", "transformer.h.1.mlp.c_proj"}));
    Model again = load_base("base");
    load_adapter<float, Cpu>(again, directory.path());
}
