// Adapters that PEFT saved: the same logits, loss, gradients and merge as there, and the same files back.

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

} // namespace

TEST_CASE("adapters that PEFT saved compute what they compute in PEFT") {
    for (const std::string& name : fixtures_with("peft_", "reference.safetensors")) {
        if (name == "peft_modules_to_save") {
            continue;
        }
        CAPTURE(name);
        Model model = base();
        const LoraConfig config = load_adapter<float, Cpu>(model, fixture(name));
        CHECK(config.unknown_keys.empty());
        CHECK(describe(count_parameters<float, Cpu>(model)) ==
              read_json(fixture(name) / "runs.json").at("trainable").get<std::string>());
        check_numbers(model, SafetensorsFile::open((fixture(name) / "reference.safetensors").string()));
    }
}

TEST_CASE("an adapter that is loaded and saved gives PEFT's files back") {
    for (const std::string& name : fixtures_with("peft_", "adapter_model.safetensors")) {
        if (name == "peft_modules_to_save") {
            continue;
        }
        CAPTURE(name);
        Model model = base();
        const LoraConfig config = load_adapter<float, Cpu>(model, fixture(name));
        const TemporaryDirectory out;
        save_adapter<float, Cpu>(model, config, out.path());
        const auto source = SafetensorsFile::open((fixture(name) / "adapter_model.safetensors").string());
        const auto copy = SafetensorsFile::open((out / "adapter_model.safetensors").string());
        CHECK(copy.keys() == source.keys());
        CHECK(copy.metadata() == source.metadata());
        for (const auto& [key, entry] : source.tensors()) {
            CAPTURE(key);
            CHECK(copy.at(key).dtype == entry.dtype);
            CHECK(copy.at(key).shape == entry.shape);
            CHECK(std::equal(copy.at(key).bytes.begin(), copy.at(key).bytes.end(), entry.bytes.begin(),
                             entry.bytes.end()));
        }
        CHECK(file_bytes(out / "adapter_config.json") == file_bytes(fixture(name) / "adapter_config.json"));
    }
}

TEST_CASE("modules_to_save is refused by name") {
    Model model = base();
    const std::string message =
        message_of<FileError>([&] { load_adapter<float, Cpu>(model, fixture("peft_modules_to_save")); });
    CHECK(message.find("adapter_config.json") != std::string::npos);
    CHECK(message.find("'modules_to_save'") != std::string::npos);
}
