// The device seam: GPT-2 runs, trains and generates on a device that only this test knows, with the host's bits.

#include <csignal>
#include <sys/wait.h>
#include <unistd.h>

#include "io/temporary_directory.hpp"
#include "lowrank/adapters/attach.hpp"
#include "lowrank/adapters/merge.hpp"
#include "lowrank/adapters/peft_files.hpp"
#include "lowrank/generate/generate.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"
#include "lowrank/train/trainer.hpp"
#include "models_testing.hpp"
#include "nn/shifted_device.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

/// Everything that a run gives, in bits.
struct Outcome {
    std::vector<float> logits, adapted_logits, merged_logits;
    std::vector<double> losses, norms;
    double evaluation = 0;
    std::string adapter, config;
    std::vector<std::int32_t> generated;

    friend bool operator==(const Outcome&, const Outcome&) = default;
};

template <DeviceTag D>
void train(Gpt2<float, D>& model, const Dataset& data, Outcome& outcome) {
    ParameterGroup<float, D> group;
    for (const auto& tensor : trainable_tensors<float, D>(model)) {
        group.names.push_back(tensor.name);
        group.parameters.push_back(tensor.values);
    }
    AdamWOptions options;
    options.learning_rate = 1e-2;
    AdamW<float, D> optimizer({group}, options);
    LoaderOptions batches;
    batches.accumulation_steps = 2;
    DataLoader loader(data, batches);
    Trainer<float, D, Gpt2<float, D>> trainer(model, loader, optimizer, {});
    for (int step = 0; step < 3; ++step) {
        const StepMetrics metrics = trainer.step();
        outcome.losses.push_back(metrics.loss);
        outcome.norms.push_back(metrics.grad_norm);
    }
    outcome.evaluation = evaluate<D>(model, data, 2);
}

template <DeviceTag D>
Outcome run(const std::string& name, const AdapterConfig& config, bool checkpointing) {
    Outcome outcome;
    Gpt2<float, D> model = load_gpt2<float, D>(fixture(name));
    const auto reference = SafetensorsFile::open((fixture(name) / "reference.safetensors").string());
    const Tensor<std::int32_t> host_ids = ids_of(reference, "input_ids");
    const std::vector<std::int32_t> rows = host_ids.to_vector(), labels = ids_of(reference, "labels").to_vector();
    const auto ids = Tensor<std::int32_t, D>::from(rows, host_ids.shape());
    const auto logits = [&] {
        const NoGrad no_grad;
        return model.logits(model.hidden(ids)).to_vector();
    };
    outcome.logits = logits();

    attach_adapter<float, D>(model, config, 1);
    model.set_base_dropout(0.1, 0.1, 0.1);
    model.gradient_checkpointing = checkpointing;
    Dataset data;
    const std::ptrdiff_t length = host_ids.size(1);
    for (std::ptrdiff_t row = 0; row < 2; ++row) {
        const std::ptrdiff_t begin = row * length, end = begin + length;
        data.examples.push_back(
            {{rows.begin() + begin, rows.begin() + end}, {labels.begin() + begin, labels.begin() + end}});
        data.origins.push_back({});
    }
    train(model, data, outcome);
    outcome.adapted_logits = logits();

    const TemporaryDirectory directory;
    save_adapter<float, D>(model, config, directory.path());
    outcome.adapter = file_bytes(directory / "adapter_model.safetensors");
    outcome.config = file_bytes(directory / "adapter_config.json");
    load_adapter<float, D>(model, directory.path());
    CHECK(logits() == outcome.adapted_logits);

    SamplerOptions options;
    options.temperature = 2;
    Sampler sampler(options);
    generate<float, D>(model, std::span(rows).first(4), 8, {}, sampler, [&](std::int32_t id) {
        outcome.generated.push_back(id);
        return true;
    });
    auto merged = merge<float, D>(model);
    outcome.merged_logits = logits();
    merged.unmerge();
    CHECK(logits() == outcome.adapted_logits);
    return outcome;
}

void check_equal(const std::string& name, const AdapterConfig& config, bool checkpointing) {
    CAPTURE(name);
    const Outcome host = run<Cpu>(name, config, checkpointing),
                  device = run<ShiftedDevice>(name, config, checkpointing);
    CHECK(device.logits == host.logits);
    CHECK(device.losses == host.losses);
    CHECK(device.adapter == host.adapter);
    CHECK(device == host);
    CHECK(host.losses.size() == 3);
    CHECK(host.adapted_logits != host.logits);
    CHECK(host.generated.size() == 8);
}

} // namespace

TEST_CASE("the host cannot read the device's memory") {
    const auto values = Tensor<float, ShiftedDevice>::from({1.0f, 2.0f}, {2});
    CHECK(values.to_vector() == std::vector<float>{1, 2});
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        std::signal(SIGSEGV, SIG_DFL);
        std::signal(SIGBUS, SIG_DFL);
        const volatile float read = *values.data();
        ::_exit(read == 1 ? 0 : 1);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    CHECK(WIFSIGNALED(status));
}

TEST_CASE("LoRA on every linear layer, trained biases, dropout everywhere") {
    LoraConfig config;
    config.target_modules = std::string("all-linear");
    config.lora_dropout = 0.1;
    config.lora_alpha = 16;
    config.bias = BiasMode::all;
    check_equal("gpt2_tied", config, false);
}

TEST_CASE("DoRA over 16-bit matrices, with dropout and checkpointing") {
    LoraConfig config;
    config.use_dora = true;
    config.lora_dropout = 0.1;
    config.lora_alpha = 16;
    check_equal("gpt2_bf16", config, true);
}

TEST_CASE("VeRA, IA3, and LoRA and DoRA on the embeddings") {
    VeraConfig vera;
    vera.r = 8;
    vera.d_initial = 1;
    vera.target_modules = std::string("all-linear");
    check_equal("gpt2_tied", vera, false);
    check_equal("gpt2_tied", Ia3Config(), true);
    LoraConfig embeddings;
    embeddings.target_modules = std::vector<std::string>{"wte", "wpe"};
    check_equal("gpt2_tied", embeddings, false);
    embeddings.use_dora = true;
    check_equal("gpt2_bf16", embeddings, false);
}
