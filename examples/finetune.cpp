// finetune: trains a LoRA, rsLoRA or DoRA adapter, or all weights, of a GPT-2 on a data file.

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "adapter_options.hpp"
#include "config_file.hpp"
#include "data_options.hpp"
#include "lowrank/adapters/peft_files.hpp"
#include "lowrank/data/order.hpp"
#include "lowrank/data/packing.hpp"
#include "lowrank/io/atomic_directory.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"
#include "lowrank/train/early_stopping.hpp"
#include "lowrank/train/fingerprint.hpp"
#include "lowrank/train/progress.hpp"
#include "lowrank/train/stop_on_interrupt.hpp"
#include "lowrank/train/trainer.hpp"
#include "lowrank/train/watchdog.hpp"
#include "model.hpp"
#include "number.hpp"
#include "output.hpp"
#include "program.hpp"
#include "reports.hpp"
#include "run_options.hpp"
#include "say.hpp"

using namespace lowrank;

namespace {

struct Options : examples::AdapterOptions, examples::RunOptions, examples::ReportOptions {
    examples::ModelOptions model;
    std::string data, output, eval_data, base_dropout = "config";
    examples::DataChoices choices;
    double eval_split = 0;
    bool packing = false, overwrite = false;
    AdamWOptions adamw{.learning_rate = 2e-4, .weight_decay = 0.0};
    double loraplus_lr_ratio = 0, max_grad_norm = 1;
    std::string scheduler = "linear";
    double warmup_ratio = 0, num_train_epochs = 3;
    std::int64_t warmup_steps = 0, max_steps = 0;
    LoaderOptions loader{.batch_size = 8};
    std::int64_t eval_batch_size = 8;
    bool no_shuffle = false, gradient_checkpointing = false;
};

void refuse_contradictions(const Options& options, const CLI::App& app) {
    examples::refuse_without_effect(options, app);
    if (options.eval_split > 0 && !options.eval_data.empty()) {
        throw OptionError("--eval-split: found --eval-data too, expected one of them");
    }
    if (options.packing && options.loader.group_by_length) {
        throw OptionError("--group-by-length: found --packing too, expected one of them: packed rows are all long");
    }
    examples::refuse_contradictions(options, !options.eval_data.empty() || options.eval_split > 0);
}

/// Writes what is trained, and what belongs to it, into a directory.
void save_trained(examples::Model& model, const LoraConfig& config, const Options& options,
                  const examples::DataReader& reader, const std::filesystem::path& directory) {
    if (options.trains_all_weights()) {
        for (const auto& tensor : trainable_tensors<float, Cpu>(model)) {
            require_finite(tensor.name, tensor.values);
        }
        save_gpt2(model, directory);
    } else {
        save_adapter<float, Cpu>(model, config, directory);
    }
    examples::copy_text_files(options.model.model, directory);
    reader.save_template(directory);
}

/// Evaluations on standard output, and in each checkpoint what the output will hold.
class Session : public TrainerCallback {
  public:
    Session(examples::Model& model, const LoraConfig& config, const Options& options,
            const examples::DataReader& reader)
        : model_(model),
          config_(config),
          options_(options),
          reader_(reader) {}

    void on_evaluate(const EvaluationMetrics& m, TrainerState&) override {
        examples::say(stdout, "step {}  eval_loss {:.4f}  perplexity {:.3f}\n", m.step, m.loss, m.perplexity());
    }
    void on_save(const std::filesystem::path& directory, json&) override {
        save_trained(model_, config_, options_, reader_, directory);
    }

  private:
    examples::Model& model_;
    const LoraConfig& config_;
    const Options& options_;
    const examples::DataReader& reader_;
};

/// The options in effect that finetune.toml repeats.
examples::NamedValues effective_options(const Options& options, const examples::Program& app) {
    std::vector<std::string> left_out = examples::options_without_effect(options);
    left_out.insert(left_out.end(), {"--overwrite-output-dir", "--resume"}); // leave for one run is not for the next
    if (!options.init_adapter.empty() && app.count("--lora-dropout") == 0) {
        left_out.push_back("--lora-dropout"); // the adapter's own
    }
    return examples::ConfigFile(app).in_effect(left_out);
}

/// What a resumed run must have in common with its beginning. Files count by what is in them, not by their names.
RunSettings run_settings(const Options& options, const examples::Program& app, const LoraConfig& config,
                         const Dataset& data, const std::optional<Dataset>& eval_data) {
    RunSettings settings;
    for (const auto& [name, value] : effective_options(options, app)) {
        settings[name] = value;
    }
    for (const char* name :
         {"model", "data", "eval-data", "output", "init-adapter", "threads", "log-file", "logging-steps", "logging-dir",
          "report-to", "report-samples", "save-steps", "save-strategy", "save-total-limit", "loss-watchdog"}) {
        settings.erase(name);
    }
    settings["the rows of --data"] = fingerprint(data);
    if (eval_data) {
        settings["the rows of the evaluation"] = fingerprint(*eval_data);
    }
    if (!options.init_adapter.empty()) {
        settings["the settings of --init-adapter"] = peft_config(config, false, {}).dump();
    }
    for (const auto& entry : std::filesystem::directory_iterator(options.model.model)) {
        if (entry.path().extension() == ".safetensors" || entry.path().filename() == "config.json") {
            settings[concat("the file ", entry.path().filename().string(), " of --model")] =
                sampled_fingerprint(entry.path());
        }
    }
    return settings;
}

TrainerOptions trainer_options(const Options& options, const DataLoader& loader,
                               const std::optional<Dataset>& eval_data) {
    TrainerOptions result;
    result.max_steps = options.max_steps > 0 ? options.max_steps : steps_for_epochs(loader, options.num_train_epochs);
    result.schedule = {schedule_from_name(options.scheduler),
                       warmup_step_count(result.max_steps, options.warmup_steps, options.warmup_ratio),
                       result.max_steps};
    result.max_grad_norm = options.max_grad_norm;
    result.seed = options.loader.seed;
    result.eval_data = eval_data ? &*eval_data : nullptr;
    result.eval_batch_size = options.eval_batch_size;
    result.evaluate = {options.eval_steps, options.eval_strategy == "epoch"};
    result.output_dir = options.output;
    result.save = {options.save_steps, options.save_strategy == "epoch"};
    result.save_total_limit = options.save_total_limit;
    result.load_best_model_at_end = options.load_best_model_at_end;
    return result;
}

int finetune(Options& options, const examples::Program& app) {
    refuse_contradictions(options, app);
    const std::optional<std::filesystem::path> checkpoint =
        examples::checkpoint_to_resume(options, options.output, app);
    examples::check_output(options.output, options.overwrite || checkpoint,
                           {{"--model", options.model.model},
                            {"--data", options.data},
                            {"--eval-data", options.eval_data},
                            {"--log-file", options.log_file}});
    examples::Model model = examples::load_model(options.model);
    examples::DataReader reader(options.choices, options.model, options.init_adapter, model.config);
    Dataset rows = reader.read(options.data);
    std::optional<Dataset> eval_data;
    if (!options.eval_data.empty()) {
        eval_data = reader.read(options.eval_data);
    } else if (options.eval_split > 0) {
        DatasetSplit split = split_dataset(std::move(rows), options.eval_split, options.loader.seed);
        rows = std::move(split.train);
        eval_data = std::move(split.eval);
    }
    reader.check_template();
    examples::say(stderr, "{}", reader.describe(rows));
    std::optional<Dataset> packed;
    if (options.packing) {
        packed = pack_dataset(rows, reader.max_seq_length());
        examples::say(stderr, "packed {} rows into {} of at most {} tokens\n", rows.size(), packed->size(),
                      reader.max_seq_length());
    }
    const Dataset& data = packed ? *packed : rows;

    const LoraConfig config =
        examples::prepare(model, options, examples::base_model_name(options.model), options.loader.seed, app);
    if (options.base_dropout == "none") {
        model.set_base_dropout(0, 0, 0);
    }
    model.gradient_checkpointing = options.gradient_checkpointing;
    examples::say(stdout, "{}\n", describe(count_parameters<float, Cpu>(model)));

    options.loader.shuffle = !options.no_shuffle;
    DataLoader loader(data, options.loader);
    TrainerOptions settings = trainer_options(options, loader, eval_data);
    if (options.saves() || checkpoint) {
        settings.settings = run_settings(options, app, config, data, eval_data);
    }
    AdamW<float> optimizer(examples::parameter_groups(model, options.adamw.learning_rate, options.loraplus_lr_ratio),
                           options.adamw);
    Trainer<float, Cpu, examples::Model> trainer(model, loader, optimizer, settings);

    examples::Reports reports(options, "Fine-tuning of " + examples::base_model_name(options.model), model, reader,
                              eval_data ? *eval_data : rows);
    Progress progress(settings.max_steps, options.logging_steps);
    EarlyStopping early_stopping(std::max<std::int64_t>(1, options.early_stopping_patience),
                                 options.early_stopping_threshold);
    LossWatchdog watchdog([&](const std::string& message) {
        if (options.loss_watchdog == "stop") {
            throw NumericError(message);
        }
        progress.finish();
        examples::say(stderr, "warning: {}\n", message);
    });
    Session session(model, config, options, reader);
    StopOnInterrupt interrupt;
    std::vector<TrainerCallback*> callbacks = {&progress, &interrupt, &session};
    if (options.early_stopping_patience > 0) {
        callbacks.push_back(&early_stopping);
    }
    if (options.loss_watchdog != "off") {
        callbacks.push_back(&watchdog);
    }
    reports.join(callbacks);

    { AtomicDirectory trial(options.output); } // what cannot be written should be known before training
    if (checkpoint) {
        trainer.resume(*checkpoint, callbacks);
        examples::say(stdout, "resumed from {} at step {} of {}\n", checkpoint->string(), trainer.steps(),
                      settings.max_steps);
    } else if (options.saves() && std::filesystem::exists(options.output)) {
        AtomicDirectory(options.output).commit(); // checkpoints of another run have no place here
    }
    try {
        trainer.train(callbacks);
    } catch (const NumericError&) {
        examples::require_finite_weights(model); // a tensor that is at fault says more
        throw;
    }
    if (trainer.steps() == 0) {
        examples::say(stdout, "interrupted before the first step, nothing saved\n");
        return 130;
    }

    // Beside checkpoints the files of the output are put in place one by one; otherwise all at once.
    const bool beside = (options.saves() || checkpoint) && !checkpoint_steps(options.output).empty();
    const std::filesystem::path place(options.output);
    AtomicDirectory output(beside ? place / examples::staging : place);
    save_trained(model, config, options, reader, output.path());
    const examples::NamedValues in_effect = effective_options(options, app);
    reports.write(output.path(), in_effect, trainer.state());
    write_atomically(output.path() / "finetune.toml", examples::config_text(in_effect));
    if (beside) {
        move_files(output.path(), options.output);
    } else {
        output.commit();
    }
    std::string how = interrupt.interrupted() ? "interrupted, saved" : "saved";
    if (options.early_stopping_patience > 0 && early_stopping.stopped()) {
        how = "stopped early, saved";
    }
    if (options.load_best_model_at_end && trainer.state().best_loss) {
        how += fmt::format(" the best model, of step {},", trainer.state().best_step);
    }
    examples::say(stdout, "{} after {} of {} steps{}: {}\n", how, trainer.steps(), settings.max_steps,
                  trainer.skipped_steps() > 0 ? fmt::format(" ({} skipped)", trainer.skipped_steps()) : "",
                  options.output);
    reports.require_complete();
    return interrupt.interrupted() ? 130 : 0;
}

void add_options(CLI::App& app, Options& o) {
    using examples::number;
    constexpr std::int64_t most_rows = 1 << 30;
    examples::add_model_options(app, o.model, false);
    app.add_option("--data", o.data, fmt::format("training data: {}", examples::data_help))->required();
    app.add_option("--output", o.output, "directory to write: the adapter, or with --method full the model")
        ->required();
    app.add_flag("--overwrite-output-dir", o.overwrite, "replace an output directory that exists");
    examples::add_data_options(app, o.choices);
    app.add_flag("--packing", o.packing, "put several rows into one of --max-seq-length; each sees only itself");
    app.add_flag("--group-by-length", o.loader.group_by_length, "rows of like length in one step, for less padding");
    app.add_option("--eval-data", o.eval_data, "data to evaluate on at the end");
    app.add_option("--eval-split", o.eval_split,
                   "evaluate on this part of --data instead, and train on the rest; 0: off")
        ->check(number(0.0, 0.999));
    examples::add_run_options(app, o);

    examples::add_adapter_options(app, o);
    app.add_option("--base-dropout", o.base_dropout, "dropout of the base model: as its config.json says, or none")
        ->check(CLI::IsMember({"config", "none"}));

    app.add_option("--learning-rate", o.adamw.learning_rate, "highest learning rate")->check(number(0.0));
    app.add_option("--loraplus-lr-ratio", o.loraplus_lr_ratio, "LoRA+: B learns this many times faster; 0: off")
        ->check(number(0.0));
    app.add_option("--lr-scheduler-type", o.scheduler, "how the learning rate goes on")
        ->check(CLI::IsMember({"constant", "constant_with_warmup", "linear", "cosine"}));
    app.add_option("--warmup-ratio", o.warmup_ratio, "part of the steps that warms up")->check(number(0.0, 1.0));
    app.add_option("--warmup-steps", o.warmup_steps, "steps that warm up")->check(number<std::int64_t>(0));
    app.add_option("--num-train-epochs", o.num_train_epochs, "epochs")->check(number(0.001, 1e6));
    app.add_option("--max-steps", o.max_steps, "steps, instead of epochs; 0: epochs count")
        ->check(number<std::int64_t>(0));
    app.add_option("--per-device-train-batch-size", o.loader.batch_size, "rows of a micro-batch")
        ->check(number<std::int64_t>(1, most_rows));
    app.add_option("--per-device-eval-batch-size", o.eval_batch_size, "rows of a batch in evaluation")
        ->check(number<std::int64_t>(1, most_rows));
    app.add_option("--gradient-accumulation-steps", o.loader.accumulation_steps, "micro-batches of a step")
        ->check(number<std::int64_t>(1, most_rows));
    app.add_option("--adam-beta1", o.adamw.beta1, "AdamW's first beta")->check(number(0.0, 1.0));
    app.add_option("--adam-beta2", o.adamw.beta2, "AdamW's second beta")->check(number(0.0, 1.0));
    app.add_option("--adam-epsilon", o.adamw.epsilon, "AdamW's epsilon")->check(number(0.0));
    app.add_option("--weight-decay", o.adamw.weight_decay, "decoupled weight decay of every trained tensor")
        ->check(number(0.0));
    app.add_option("--max-grad-norm", o.max_grad_norm, "clip gradients to this norm; 0: do not")->check(number(0.0));
    app.add_flag("--gradient-checkpointing", o.gradient_checkpointing, "less memory for more time");
    examples::add_report_options(app, o);
    app.add_option("--seed", o.loader.seed, "seed of initial factors, shuffling and dropout")
        ->check(number<std::uint64_t>(0));
    app.add_flag("--no-shuffle", o.no_shuffle, "take the rows in the order of the file");
}

} // namespace

int main(int argc, char** argv) {
    examples::Program app("Fine-tunes a GPT-2: a LoRA, rsLoRA or DoRA adapter that PEFT opens, or all weights.");
    Options options;
    add_options(app, options);
    return app.run(argc, argv, [&] { return finetune(options, app); });
}
