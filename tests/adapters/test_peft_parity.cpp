// Adapters that PEFT saved: the same logits, loss, gradients and merge as there, and the same files back.

#include <functional>
#include <map>

#include "adapters/load_for_training.hpp"
#include "io/temporary_directory.hpp"
#include "lowrank/adapters/merge.hpp"
#include "lowrank/adapters/peft_files.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"
#include "models_testing.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

using Model = Gpt2<float>;

Model base() {
    return load_gpt2<float>(fixture("peft_base"));
}

void check_numbers(Model& model, const SafetensorsFile& reference) {
    constexpr double tolerance = 1e-5;
    const Tensor<std::int32_t> ids = ids_of(reference, "input_ids"), labels = ids_of(reference, "labels");
    {
        const NoGrad no_grad;
        CHECK(relative_error(model.logits(model.hidden(ids)), tensor_of(reference, "logits")) <= tolerance);
    }
    const Tensor<float> loss =
        model.loss(ids, labels) * static_cast<float>(1.0 / static_cast<double>(supervised_count(labels)));
    CHECK(relative_error(reshape(loss, {1}), tensor_of(reference, "loss")) <= tolerance);

    const Gradients gradients = backward(loss);
    const std::set<std::string> adapted = detail::adapted_layers<float, Cpu>(model);
    std::set<std::string> compared;
    for (const NamedTensor<float, Cpu>& trained : trainable_tensors<float, Cpu>(model)) {
        const std::string key = "grad." + detail::peft_key(trained.name, adapted);
        CAPTURE(key);
        const Tensor<float>* gradient = gradients.find(trained.values);
        REQUIRE(gradient != nullptr);
        CHECK(relative_error(*gradient, tensor_of(reference, key)) <= tolerance);
        compared.insert(key);
    }
    for (const std::string& key : reference.keys()) {
        CHECK_MESSAGE((!key.starts_with("grad.") || compared.contains(key)), key << " trains in PEFT and not here");
    }

    const NoGrad no_grad;
    merge<float, Cpu>(model);
    CHECK(detail::adapted_layers<float, Cpu>(model).empty());
    CHECK(relative_error(model.logits(model.hidden(ids)), tensor_of(reference, "merged_logits")) <= tolerance);
}

/// An adapter directory like the fixture's, whose tensors `change` may change, and the message with which loading it is
/// refused.
std::string refusal(const std::function<void(std::map<std::string, Tensor<float>>&)>& change) {
    const SafetensorsFile file = SafetensorsFile::open((fixture("peft_dora") / "adapter_model.safetensors").string());
    std::map<std::string, Tensor<float>> tensors;
    for (const std::string& key : file.keys()) {
        tensors.emplace(key, tensor_of(file, key));
    }
    change(tensors);
    std::vector<TensorSource> sources;
    for (const auto& [key, values] : tensors) {
        sources.push_back(tensor_source(key, values));
    }
    const TemporaryDirectory directory;
    std::filesystem::copy(fixture("peft_dora") / "adapter_config.json", directory / "adapter_config.json");
    write_safetensors(directory / "adapter_model.safetensors", sources, {});
    Model model = base();
    return message_of<FileError>([&] { load_adapter<float, Cpu>(model, directory.path()); });
}

} // namespace

TEST_CASE("adapters that PEFT saved compute what they compute in PEFT") {
    for (const std::string& name : fixtures_with("peft_", "reference.safetensors")) {
        CAPTURE(name);
        Model model = base();
        const AdapterConfig config = load_for_training(model, fixture(name));
        CHECK(targets(config).unknown_keys.empty());
        const std::string line = describe(count_parameters<float, Cpu>(model)),
                          expected = read_json(fixture(name) / "runs.json").at("trainable").get<std::string>();
        // PEFT keeps, and counts, the original of a module that is trained whole too.
        const std::size_t compared = targets(config).modules_to_save.empty() ? expected.npos : expected.find(" ||");
        CHECK(line.substr(0, compared) == expected.substr(0, compared));
        check_numbers(model, SafetensorsFile::open((fixture(name) / "reference.safetensors").string()));
    }
}

TEST_CASE("an adapter that is loaded and saved gives PEFT's files back") {
    for (const std::string& name : fixtures_with("peft_", "adapter_model.safetensors")) {
        CAPTURE(name);
        Model model = base();
        const AdapterConfig config = load_adapter<float, Cpu>(model, fixture(name));
        const TemporaryDirectory out;
        save_adapter<float, Cpu>(model, config, out.path());
        const auto source = SafetensorsFile::open((fixture(name) / "adapter_model.safetensors").string());
        const auto copy = SafetensorsFile::open((out / "adapter_model.safetensors").string());
        CHECK(copy.keys() == source.keys());
        CHECK(copy.metadata() == source.metadata());
        for (const auto& tensor : source.tensors()) {
            const std::string& key = tensor.first;
            const TensorEntry& entry = tensor.second;
            CAPTURE(key);
            CHECK(copy.at(key).dtype == entry.dtype);
            CHECK(copy.at(key).shape == entry.shape);
            CHECK(std::equal(copy.at(key).bytes.begin(), copy.at(key).bytes.end(), entry.bytes.begin(),
                             entry.bytes.end()));
        }
        CHECK(file_bytes(out / "adapter_config.json") == file_bytes(fixture(name) / "adapter_config.json"));
    }
}

TEST_CASE("modules_to_save: any module but embeddings and heads, trained whole beside the adapters") {
    LoraConfig config;
    config.modules_to_save = {"h.1.mlp.c_fc", "ln_1"};
    Model model = base(), again = base();
    attach_lora<float, Cpu>(model, config, 1);
    std::set<std::string> names;
    for (const NamedTensor<float, Cpu>& trained : trainable_tensors<float, Cpu>(model)) {
        names.insert(trained.name);
        Tensor<float> live = trained.values;
        live.mutable_data()[0] += 0.5f;
    }
    CHECK(names.size() == 2 * 2 + 2 + 2 * 2);
    CHECK(names.contains("transformer.h.1.mlp.c_fc.weight"));
    CHECK(names.contains("transformer.h.0.ln_1.bias"));
    const TemporaryDirectory out;
    save_adapter<float, Cpu>(model, config, out.path());
    CHECK(SafetensorsFile::open((out / "adapter_model.safetensors").string())
              .at("base_model.model.transformer.h.1.mlp.c_fc.weight")
              .shape == std::vector<std::int64_t>{24, 96});
    load_adapter<float, Cpu>(again, out.path());
    const auto ids = Tensor<std::int32_t>::from(std::vector<std::int32_t>{1, 2, 3, 4}, {1, 4});
    CHECK(again.hidden(ids).to_vector() == model.hidden(ids).to_vector());

    for (const char* name : {"wte", "lm_head", "transformer", "nothing"}) {
        config.modules_to_save = {name};
        Model other = base();
        const std::string message = message_of<OptionError>([&] { attach_lora<float, Cpu>(other, config, 0); });
        CHECK(message.find("modules_to_save: ") != std::string::npos);
        CHECK(message.find(concat("'", name, "'")) != std::string::npos);
    }
}

TEST_CASE("an adapter file that does not fit is refused with file and key") {
    const std::string prefix = "base_model.model.transformer.h.1.attn.c_attn.", a = prefix + "lora_A.weight",
                      m = prefix + "lora_magnitude_vector";
    const auto says = [](const std::string& message, const std::string& key, const std::string& what) {
        CAPTURE(message);
        CHECK(message.find("adapter_model.safetensors") != std::string::npos);
        CHECK(message.find(key) != std::string::npos);
        CHECK(message.find(what) != std::string::npos);
    };
    CHECK(refusal([](auto&) {}).empty());
    says(refusal([&](auto& t) { t.erase(a); }), a, "not in the file");
    says(refusal([&](auto& t) { t.erase(m); }), m, "not in the file");
    says(refusal([&](auto& t) { t[a] = Tensor<float>::zeros({5, 24}); }), a, "found shape [5, 24], expected [4, 24]");
    says(refusal([&](auto& t) { t[m] = Tensor<float>::zeros({72, 1}); }), m, "found shape [72, 1], expected [72]");
    const std::string embedding = "base_model.model.transformer.wte.lora_embedding_A";
    says(refusal([&](auto& t) { t[embedding] = Tensor<float>::zeros({4, 48}); }), embedding, "unexpected");

    const TemporaryDirectory directory;
    std::filesystem::copy(fixture("peft_lora"), directory.path());
    const std::filesystem::path file = directory / "adapter_model.safetensors";
    const std::string bytes = file_bytes(file);
    const auto load = [&] {
        Model model = base();
        return message_of<FileError>([&] { load_adapter<float, Cpu>(model, directory.path()); });
    };
    write_file(file, bytes.substr(0, bytes.size() - 4));
    says(load(), "lora_", "data_offsets");
    write_file(file, bytes.substr(0, 40));
    says(load(), "header length", "complete");
    std::string integers = bytes;
    for (std::size_t at = 0; (at = integers.find("\"F32\"", at)) != std::string::npos;) {
        integers.replace(at, 5, "\"I32\"");
    }
    write_file(file, integers);
    says(load(), prefix.substr(0, 30), "found type I32");
    std::filesystem::remove(file);
    says(load(), "adapter_model.safetensors", "");
}

TEST_CASE("targets that the model does not have are refused by name, before anything changes") {
    Model model = base();
    const auto refused = [&](ModuleSelection modules) {
        LoraConfig config;
        config.target_modules = modules;
        const std::string message = message_of<OptionError>([&] { attach_lora<float, Cpu>(model, config, 0); });
        CHECK(detail::adapted_layers<float, Cpu>(model).empty());
        return message;
    };
    using Names = std::vector<std::string>;
    CHECK(refused(Names{"q_proj"}).find("transformer.h.0.attn.c_attn") != std::string::npos);
    CHECK(refused("c_attn").find("no linear layer of the model matches") != std::string::npos);
    CHECK(refused(Names{"c_attn", "ln_f"}).find("'transformer.ln_f'") != std::string::npos);
    CHECK(refused(".*attn").find("'transformer.h.0.attn'") != std::string::npos);
    CHECK(refused(Names{"c_attn", "lm_head"}).find("'lm_head'") != std::string::npos);

    const TemporaryDirectory directory;
    std::filesystem::copy(fixture("peft_lora"), directory.path());
    write_file(directory / "adapter_config.json", R"({"peft_type": "LORA", "target_modules": ["q_proj"]})");
    const std::string message = message_of<FileError>([&] { load_adapter<float, Cpu>(model, directory.path()); });
    CHECK(message.find("adapter_config.json: target_modules") != std::string::npos);
}

TEST_CASE("patterns whose order decides survive a file, whose keys are sorted") {
    LoraConfig config;
    config.target_modules = ModuleSelection("all-linear");
    config.rank_pattern = {{"mlp.c_proj", 3}, {"c_proj", 2}, {"attn.c_proj", 5}};
    config.alpha_pattern = {{"h.1.attn.c_attn", 4}, {"c_attn", 2}, {"attn.c_attn", 9}};
    config.init_lora_weights = LoraInit::random;
    Model model = base(), again = base();
    attach_lora<float, Cpu>(model, config, 1);
    const TemporaryDirectory out;
    save_adapter<float, Cpu>(model, config, out.path());
    const auto loaded = std::get<LoraConfig>(load_adapter<float, Cpu>(again, out.path()));
    for (const std::string& path : detail::adapted_layers<float, Cpu>(model)) {
        CAPTURE(path);
        CHECK(rank_at(loaded, path) == rank_at(config, path));
        CHECK(alpha_at(loaded, path) == alpha_at(config, path));
    }
    const auto ids = Tensor<std::int32_t>::from(std::vector<std::int32_t>{1, 2, 3, 4}, {1, 4});
    CHECK(again.hidden(ids).to_vector() == model.hidden(ids).to_vector());
}
