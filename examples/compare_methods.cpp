// compare_methods: trains one model on the same data by every method, and sets side by side what each takes and gives.

#include <algorithm>
#include <cmath>
#include <malloc.h>
#include <optional>

#include <fmt/ranges.h>

#include "adapter_options.hpp"
#include "compare_methods/methods.hpp"
#include "compare_methods/report.hpp"
#include "data_options.hpp"
#include "lowrank/adapters/peft_files.hpp"
#include "lowrank/io/atomic_directory.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"
#include "lowrank/train/adalora_training.hpp"
#include "lowrank/train/process_memory.hpp"
#include "lowrank/train/trainer.hpp"
#include "model.hpp"
#include "number.hpp"
#include "output.hpp"
#include "program.hpp"
#include "say.hpp"

using namespace lowrank;

namespace {

struct Options {
    examples::ModelOptions model;
    examples::DataChoices choices;
    std::vector<std::string> methods = examples::method_names();
    std::string data, eval_data, output = "compare-methods";
    LoaderOptions loader{.batch_size = 16};
    std::int64_t r = 8, max_steps = 0, eval_batch_size = 16;
    double lora_alpha = 16, learning_rate = 5e-3, num_train_epochs = 4, eval_split = 0.1;
    bool overwrite = false;
};

/// Trains as one method says, and saves what it gives into `directory`.
examples::Outcome train(const examples::Method& method, const Options& options, const DatasetSplit& data,
                        std::int64_t steps, const std::filesystem::path& directory) {
    Cpu::empty_cache(); // what the method before kept for reuse is not this one's
    malloc_trim(0);
    reset_peak_memory();
    examples::ModelOptions source = options.model;
    source.quantize = method.quantized ? "nf4" : "none";
    source.double_quantization = method.quantized;
    examples::Model model = examples::load_model(source, method.is_full());
    model.set_base_dropout(0, 0, 0);
    std::optional<AdapterConfig> config;
    std::optional<AdaLoraTraining<float, Cpu>> adalora;
    if (const auto* chosen = std::get_if<AdapterConfig>(&method.config)) {
        config = *chosen;
        targets(*config).base_model_name_or_path = options.model.model;
        attach_adapter<float, Cpu>(model, *config, options.loader.seed);
        if (const auto* settings = std::get_if<AdaLoraConfig>(&*config)) {
            adalora.emplace(model, *settings);
        }
    } else {
        for_each_parameter(model, [](const std::string&, auto& field) { set_trainable(field, true); });
    }

    examples::Outcome outcome;
    outcome.name = method.name;
    outcome.learning_rate = options.learning_rate * method.rate;
    outcome.trainable = count_parameters<float, Cpu>(model).trainable;
    DataLoader loader(data.train, options.loader);
    AdamW<float> optimizer(examples::parameter_groups(model, outcome.learning_rate, method.loraplus_lr_ratio),
                           {.learning_rate = outcome.learning_rate, .weight_decay = 0});
    TrainerOptions settings;
    settings.schedule = {ScheduleKind::cosine, warmup_step_count(steps, 0, 0.1), steps};
    settings.seed = options.loader.seed;
    Trainer<float, Cpu, examples::Model> trainer(model, loader, optimizer, settings, adalora ? &*adalora : nullptr);
    const std::int64_t tenth = std::max<std::int64_t>(1, steps / 10);
    for (std::int64_t step = 1; step <= steps; ++step) {
        const StepMetrics metrics = trainer.step();
        outcome.seconds += metrics.seconds;
        outcome.train_loss += step > steps - tenth ? metrics.loss / static_cast<double>(tenth) : 0;
        if (step % tenth == 0 || step == steps) {
            outcome.eval_loss = evaluate<Cpu>(model, data.eval, options.eval_batch_size);
            outcome.curve.emplace_back(static_cast<double>(step), outcome.eval_loss);
            examples::say(stderr, "{}: step {}/{}  loss {:.4f}  eval_loss {:.4f}\n", method.name, step, steps,
                          metrics.loss, outcome.eval_loss);
        }
    }
    outcome.peak_memory_mb = peak_memory_mb();
    std::filesystem::create_directory(directory);
    if (config) {
        save_adapter<float, Cpu>(model, *config, directory);
    } else {
        save_gpt2(model, directory);
    }
    outcome.bytes =
        std::filesystem::file_size(directory / (config ? "adapter_model.safetensors" : "model.safetensors"));
    return outcome;
}

int compare(Options& options, const examples::Program& app) {
    namespace fs = std::filesystem;
    const fs::path demo = fs::weakly_canonical(LOWRANK_DEMO_DIRECTORY);
    const bool is_demo = options.data.empty();
    if (is_demo && (!options.model.model.empty() || !options.eval_data.empty())) {
        throw OptionError("--data: found --model or --eval-data without it, expected all or none: the demo's stand for "
                          "them");
    }
    if (is_demo) {
        options.data = (demo / "train.jsonl").string();
        options.eval_data = (demo / "held_out.jsonl").string();
        options.model.model = (demo / "model").string();
    } else if (options.model.model.empty()) {
        throw OptionError("--model: found none with --data, expected both or none");
    }
    if (app.count("--eval-split") > 0 && !options.eval_data.empty()) {
        throw OptionError("--eval-split: found --eval-data too, expected one of them");
    }
    examples::check_output(
        options.output, options.overwrite,
        {{"--model", options.model.model}, {"--data", options.data}, {"--eval-data", options.eval_data}});
    std::optional<examples::Model> base = examples::load_model(options.model);
    examples::DataReader reader(options.choices, options.model, "", base->config);
    const DatasetSplit data =
        reader.read_split(options.data, options.eval_data, options.eval_split, options.loader.seed);
    reader.check_template();
    const std::int64_t steps = options.max_steps > 0
                                   ? options.max_steps
                                   : steps_for_epochs(DataLoader(data.train, options.loader), options.num_train_epochs);

    AtomicDirectory output(options.output);
    const double base_loss = evaluate<Cpu>(*base, data.eval, options.eval_batch_size);
    base.reset(); // each method's memory is counted without it
    std::vector<examples::Outcome> outcomes;
    for (const examples::Method& method : examples::all_methods(options.r, options.lora_alpha, steps)) {
        if (std::find(options.methods.begin(), options.methods.end(), method.name) != options.methods.end()) {
            outcomes.push_back(train(method, options, data, steps, output.path() / method.name));
        }
    }
    examples::say(stdout, "{} rows to train on, {} to evaluate on, {} steps of {} rows\n\n{}\n", data.train.size(),
                  data.eval.size(), steps, options.loader.batch_size * options.loader.accumulation_steps,
                  examples::comparison_table(outcomes, base_loss));
    write_atomically(output.path() / "comparison.json",
                     examples::comparison_json(outcomes, base_loss, steps).dump(2) + "\n");
    write_atomically(output.path() / "comparison.svg", examples::comparison_chart(outcomes));
    output.commit();
    examples::say(stdout, "wrote comparison.json, comparison.svg and what each method trained: {}\n", options.output);
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    using examples::number;
    constexpr std::int64_t most = 1 << 30;
    examples::Program app("Trains a model by every method on the same data and compares them. Needs no arguments.");
    Options o;
    app.add_option("--methods", o.methods, fmt::format("those to compare: {}", fmt::join(o.methods, ", ")))
        ->delimiter(',')
        ->check(CLI::IsMember(examples::method_names()));
    app.add_option("--model", o.model.model,
                   "directory of a GPT-2 as Transformers saves it; without --data the demo's");
    app.add_option("--threads", o.model.threads, "threads; 0 takes all CPUs")->check(number<int>(0, 1024));
    app.add_option("--data", o.data, fmt::format("training data: {}; by default the demo's", examples::data_help));
    app.add_option("--eval-data", o.eval_data, "data to evaluate on");
    app.add_option("--eval-split", o.eval_split, "without --eval-data: this part of --data evaluates, the rest trains")
        ->check(number(0.001, 0.999));
    examples::add_data_options(app, o.choices);
    app.add_option("--output", o.output, "directory to write: comparison.json, comparison.svg and an adapter a method");
    app.add_flag("--overwrite-output-dir", o.overwrite, "replace an output directory that exists");
    app.add_option("--r", o.r, "rank of the LoRAs, and AdaLoRA's mean rank; VeRA has PEFT's 256")
        ->check(number<std::int64_t>(1, 1024));
    app.add_option("--lora-alpha", o.lora_alpha, "alpha, by which their scale is made")->check(number(0.0));
    app.add_option("--learning-rate", o.learning_rate, "LoRA's highest learning rate; the others' are in proportion")
        ->check(number(0.0));
    app.add_option("--num-train-epochs", o.num_train_epochs, "epochs")->check(number(0.001, 1e6));
    app.add_option("--max-steps", o.max_steps, "steps, instead of epochs; 0: epochs count")
        ->check(number<std::int64_t>(0, most));
    examples::add_batch_options(app, o.loader, o.eval_batch_size);
    app.add_option("--seed", o.loader.seed, "seed of initial factors and order")->check(number<std::uint64_t>(0));
    return app.run(argc, argv, [&] { return compare(o, app); });
}
