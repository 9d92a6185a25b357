// Training adapters: the losses, norms and final tensors of PEFT's own runs, and what must not change them.

#include "adapters/load_for_training.hpp"
#include "io/temporary_directory.hpp"
#include "lowrank/adapters/peft_files.hpp"
#include "lowrank/data/load.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"
#include "lowrank/train/adalora_training.hpp"
#include "lowrank/train/trainer.hpp"
#include "models_testing.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

using Model = Gpt2<float>;

const Dataset& rows() {
    static const Dataset data = load_dataset(fixture("peft_data.jsonl").string(), {}, {});
    return data;
}

AdamW<float> optimizer_of(Model& model, const AdamWOptions& options) {
    ParameterGroup<float> group;
    for (const auto& tensor : trainable_tensors<float, Cpu>(model)) {
        group.names.push_back(tensor.name);
        group.parameters.push_back(tensor.values);
    }
    return AdamW<float>({group}, options);
}

/// A key third of a c_attn bias has a gradient of exactly 0, since softmax ignores it; in float it is noise.
void drop_key_third(const std::string& key, Tensor<float>& values) {
    if (key.ends_with("c_attn.base_layer.bias") || key.ends_with("c_attn.lora_B.bias")) {
        const std::int64_t width = values.numel() / 3;
        std::fill(values.mutable_data() + width, values.mutable_data() + 2 * width, 0.0f);
    }
}

/// One of PEFT's runs: options as `finetune` names them.
void check_run(const std::string& name, const json& run) {
    const json& o = run.at("options");
    Model model = load_gpt2<float>(fixture("peft_base"));
    const AdapterConfig config = load_for_training(model, fixture(name));
    std::unique_ptr<AdaLoraTraining<float, Cpu>> method;
    if (const auto* adalora = std::get_if<AdaLoraConfig>(&config)) {
        method = std::make_unique<AdaLoraTraining<float, Cpu>>(model, *adalora);
    }
    AdamW<float> optimizer = optimizer_of(model, {.learning_rate = o.at("learning_rate"),
                                                  .beta1 = o.at("adam_beta1"),
                                                  .beta2 = o.at("adam_beta2"),
                                                  .epsilon = o.at("adam_epsilon"),
                                                  .weight_decay = o.at("weight_decay")});
    DataLoader loader(rows(), {.batch_size = o.at("per_device_train_batch_size"),
                               .accumulation_steps = o.at("gradient_accumulation_steps"),
                               .shuffle = false});
    TrainerOptions options;
    options.schedule = {schedule_from_name(o.at("lr_scheduler_type").get<std::string>()), o.at("warmup_steps"),
                        o.at("max_steps")};
    options.max_grad_norm = o.at("max_grad_norm");
    Trainer<float, Cpu, Model> trainer(model, loader, optimizer, options, method.get());

    for (std::size_t i = 0; i < run.at("loss_fp64").size(); ++i) {
        CAPTURE(i);
        const StepMetrics metrics = trainer.step();
        CHECK(metrics.learning_rate == doctest::Approx(run.at("learning_rate")[i].get<double>()).epsilon(1e-12));
        // A curve is a reference only where PEFT's own fp32 and fp64 agree.
        struct Compared {
            std::string key;
            double found, tolerance;
        };
        for (const Compared& c : {Compared{"loss", metrics.loss, 1e-5}, Compared{"grad_norm", metrics.grad_norm, 1e-4},
                                  Compared{"penalty", metrics.penalty, 1e-5}}) {
            if (!run.contains(c.key + "_fp64")) {
                continue; // only AdaLoRA has a penalty
            }
            const double exact = run.at(c.key + "_fp64")[i], rounded = run.at(c.key + "_fp32")[i];
            if (std::abs(rounded - exact) <= 1e-6 * exact) {
                CAPTURE(c.key);
                CHECK(std::abs(c.found - exact) <= c.tolerance * exact);
            }
        }
    }
    for (const auto& [path, adapter] : adalora_adapters<float, Cpu>(model)) {
        CHECK(adapter->kept() == run.at("rank_pattern").at(path + ".lora_E").get<std::vector<bool>>());
    }
    const auto reference = SafetensorsFile::open((fixture(name) / "final.safetensors").string());
    const std::set<std::string> adapted = detail::adapted_layers<float, Cpu>(model);
    std::size_t compared = 0;
    for (const NamedTensor<float, Cpu>& trained : trainable_tensors<float, Cpu>(model)) {
        const std::string key = detail::peft_key(trained.name, adapted);
        CAPTURE(key);
        Tensor<float> found = detail::clone(trained.values), expected = tensor_of(reference, key);
        drop_key_third(key, found);
        drop_key_third(key, expected);
        CHECK(relative_error(found, expected) <= 1e-4);
        ++compared;
    }
    CHECK(compared == reference.keys().size());
}

/// The trained tensors after a run, and the norms of its gradients.
struct Ended {
    std::vector<Tensor<float>> tensors;
    std::vector<double> norms;
};

/// A short run with dropout everywhere.
struct ShortRun {
    bool gradient_checkpointing = false;
    bool use_dora = false;
    double dropout = 0.1;
    LoaderOptions loader{.batch_size = 4, .shuffle = false};

    Ended end() const {
        Model model = load_gpt2<float>(fixture("peft_base"));
        model.set_base_dropout(dropout, dropout, dropout);
        model.gradient_checkpointing = gradient_checkpointing;
        LoraConfig config;
        config.r = 4;
        config.lora_dropout = dropout;
        config.use_dora = use_dora;
        config.bias = BiasMode::all;
        config.init_lora_weights = LoraInit::random;
        config.target_modules = ModuleSelection("all-linear");
        attach_lora<float, Cpu>(model, config, 5);
        AdamW<float> optimizer = optimizer_of(model, {.learning_rate = 1e-2});
        DataLoader data(rows(), loader);
        TrainerOptions options;
        options.seed = 12;
        Trainer<float, Cpu, Model> trainer(model, data, optimizer, options);
        Ended ended;
        for (int i = 0; i < 3; ++i) {
            ended.norms.push_back(trainer.step().grad_norm);
        }
        for (const auto& tensor : trainable_tensors<float, Cpu>(model)) {
            ended.tensors.push_back(tensor.values);
        }
        return ended;
    }
};

bool same_bits(const Ended& a, const Ended& b) {
    REQUIRE(a.tensors.size() == b.tensors.size());
    bool same = a.norms == b.norms;
    for (std::size_t i = 0; i < a.tensors.size(); ++i) {
        const std::vector<float> x = a.tensors[i].to_vector(), y = b.tensors[i].to_vector();
        same = same && std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0;
    }
    return same;
}

} // namespace

TEST_CASE("training follows PEFT's runs, step by step") {
    for (const std::string& name : fixtures_with("peft_", "final.safetensors")) {
        CAPTURE(name);
        const json runs = read_json(fixture(name) / "runs.json").at("runs");
        REQUIRE(runs.size() == 2);
        for (const json& run : runs) {
            CAPTURE(run.at("options").at("gradient_accumulation_steps").get<int>());
            check_run(name, run);
        }
    }
}

TEST_CASE("checkpointing, and the number of threads, change no bit of a run with dropout") {
    for (const bool use_dora : {false, true}) {
        CAPTURE(use_dora);
        const int threads = num_threads();
        ShortRun run;
        run.use_dora = use_dora;
        set_num_threads(1);
        const auto one = run.end();
        set_num_threads(2);
        const auto two = run.end();
        set_num_threads(3);
        run.gradient_checkpointing = true;
        const auto checkpointed = run.end();
        set_num_threads(threads);
        CHECK(same_bits(one, two));
        CHECK(same_bits(one, checkpointed));
        ShortRun other;
        other.use_dora = use_dora;
        other.dropout = 0;
        CHECK_FALSE(same_bits(one, other.end()));
    }
}

TEST_CASE("k micro-batches are one batch") {
    ShortRun whole, parts;
    whole.dropout = parts.dropout = 0;
    parts.loader.batch_size = 1;
    parts.loader.accumulation_steps = 4;
    const Ended expected = whole.end(), found = parts.end();
    for (std::size_t i = 0; i < expected.norms.size(); ++i) {
        CHECK(found.norms[i] == doctest::Approx(expected.norms[i]).epsilon(1e-5));
    }
    REQUIRE(found.tensors.size() == expected.tensors.size());
    for (std::size_t i = 0; i < found.tensors.size(); ++i) {
        CAPTURE(i);
        if (found.tensors[i].rank() == 2) { // a key third of a bias is noise, as in drop_key_third
            CHECK(relative_error(found.tensors[i], expected.tensors[i]) <= 1e-4);
        }
    }
}

TEST_CASE("a step that is not finite changes nothing, and the third in a row ends the run") {
    Model model = load_gpt2<float>(fixture("peft_base"));
    const AdapterConfig config = load_adapter<float, Cpu>(model, fixture("peft_bias_lora_only"));
    AdamW<float> optimizer = optimizer_of(model, {.learning_rate = 1e-2});
    DataLoader loader(rows(), {.batch_size = 2});
    Trainer<float, Cpu, Model> trainer(model, loader, optimizer, {});
    CHECK_FALSE(trainer.step().skipped);

    std::vector<NamedTensor<float, Cpu>> tensors = trainable_tensors<float, Cpu>(model);
    float& broken = tensors.back().values.mutable_data()[0];
    const float whole = broken;
    const auto states = [&] {
        std::vector<std::vector<float>> all;
        for (const auto& state : optimizer.state()) {
            all.push_back(state.exp_avg.to_vector());
            all.push_back(state.exp_avg_sq.to_vector());
        }
        for (std::size_t i = 0; i + 1 < tensors.size(); ++i) {
            all.push_back(tensors[i].values.to_vector());
        }
        return all;
    };
    const auto before = states();
    broken = std::nanf("");
    for (int i = 0; i < 2; ++i) {
        const StepMetrics metrics = trainer.step();
        CHECK(metrics.skipped);
        CHECK(metrics_line(metrics).find("\"skipped\":true") != std::string::npos);
    }
    CHECK(states() == before);
    CHECK(optimizer.state().front().steps == 1);
    const TemporaryDirectory out;
    const std::string refused =
        message_of<NumericError>([&] { save_adapter<float, Cpu>(model, config, out / "adapter"); });
    CHECK(refused.find(tensors.back().name) != std::string::npos);
    CHECK(out.entries() == 0);

    broken = whole; // two in a row are forgiven
    CHECK_FALSE(trainer.step().skipped);
    CHECK(trainer.skipped_steps() == 2);
    broken = std::nanf("");
    trainer.step();
    trainer.step();
    const std::string message = message_of<NumericError>([&] { trainer.step(); });
    CHECK(message.find(tensors.front().name) != std::string::npos); // the first one concerned
    CHECK(message.find("3 steps in a row") != std::string::npos);
    CHECK(trainer.skipped_steps() == 5);
}
