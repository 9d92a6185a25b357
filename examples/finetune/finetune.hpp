// The fine-tuning itself, for the translation units that define it for a type of activations.
#pragma once

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/adapters/initial_pissa.hpp"
#include "lowrank/data/order.hpp"
#include "lowrank/data/packing.hpp"
#include "lowrank/io/atomic_directory.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"
#include "lowrank/models/gpt2_memory.hpp"
#include "lowrank/train/adalora_training.hpp"
#include "lowrank/train/early_stopping.hpp"
#include "lowrank/train/process_memory.hpp"
#include "lowrank/train/progress.hpp"
#include "lowrank/train/stop_on_interrupt.hpp"
#include "lowrank/train/trainer.hpp"
#include "lowrank/train/watchdog.hpp"
#include "memory.hpp"
#include "options.hpp"
#include "output.hpp"
#include "say.hpp"
#include "start.hpp"

namespace examples {

using namespace lowrank;

/// Writes what is trained, and what belongs to it, into a directory.
template <class T>
void save_trained(Gpt2<T>& model, const AdapterConfig& config, const FinetuneOptions& options, const DataReader& reader,
                  const std::filesystem::path& directory) {
    if (options.trains_all_weights()) {
        for (const auto& tensor : trainable_tensors<T, Cpu>(model)) {
            require_finite(tensor.name, tensor.values);
        }
        save_gpt2(model, directory);
    } else {
        save_plain_adapter<T, Cpu>(model, config, directory);
    }
    copy_text_files(options.model.model, directory);
    reader.save_template(directory);
}

/// Evaluations on standard output, and in each checkpoint what the output will hold.
template <class T>
class FinetuneCallback : public TrainerCallback {
  public:
    FinetuneCallback(Gpt2<T>& model, const AdapterConfig& config, const FinetuneOptions& options,
                     const DataReader& reader)
        : model_(model),
          config_(config),
          options_(options),
          reader_(reader) {}

    void on_evaluate(const EvaluationMetrics& m, TrainerState&) override {
        say(stdout, "step {}  eval_loss {:.4f}  perplexity {:.3f}\n", m.step, m.loss, m.perplexity());
    }
    void on_save(const std::filesystem::path& directory, json&) override {
        save_trained(model_, config_, options_, reader_, directory);
    }

  private:
    Gpt2<T>& model_;
    const AdapterConfig& config_;
    const FinetuneOptions& options_;
    const DataReader& reader_;
};

/// What the adapter's method does in a run of so many steps, beside its layers; null for most.
template <class T>
std::unique_ptr<TrainingMethod<float, Cpu>> training_method(Gpt2<T>& model, AdapterConfig& config, std::int64_t steps) {
    auto* adalora = std::get_if<AdaLoraConfig>(&config);
    if (adalora == nullptr) {
        return nullptr;
    }
    if (adalora->total_step == 0) { // of a file it is what the file says
        adalora->total_step = steps;
    }
    return std::make_unique<AdaLoraTraining<T, Cpu>>(model, *adalora);
}

inline TrainerOptions trainer_options(const FinetuneOptions& options, const DataLoader& loader,
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

template <class T>
int finetune(FinetuneOptions& options, const Program& app) {
    refuse_contradictions(options, app);
    const std::optional<std::filesystem::path> checkpoint = checkpoint_to_resume(options, options.output, app);
    check_output(options.output, options.overwrite || checkpoint,
                 {{"--model", options.model.model},
                  {"--data", options.data},
                  {"--eval-data", options.eval_data},
                  {"--log-file", options.log_file}});
    double other_memory = resident_memory_mb(); // beside the model
    Gpt2<T> model = load_model<T>(options.model, options.trains_all_weights());
    other_memory -= resident_memory_mb();
    DataReader reader(options.choices, options.model, options.init_adapter, model.config);
    DatasetSplit split = reader.read_split(options.data, options.eval_data, options.eval_split, options.loader.seed);
    const Dataset rows = std::move(split.train);
    std::optional<Dataset> eval_data;
    if (!options.eval_data.empty() || options.eval_split > 0) {
        eval_data = std::move(split.eval);
    }
    reader.check_template();
    say(stderr, "{}", reader.describe(rows));
    std::optional<Dataset> packed;
    if (options.packing) {
        packed = pack_dataset(rows, reader.max_seq_length());
        say(stderr, "packed {} rows into {} of at most {} tokens\n", rows.size(), packed->size(),
            reader.max_seq_length());
    }
    const Dataset& data = packed ? *packed : rows;
    other_memory += resident_memory_mb();

    AdapterConfig config = start_adapter(model, options, data, app);
    if (options.base_dropout == "none") {
        model.set_base_dropout(0, 0, 0);
    }
    model.gradient_checkpointing = options.gradient_checkpointing;
    say(stdout, "{}\n", describe(count_parameters<T, Cpu>(model)));
    const LargestBatch largest(data, options.loader.batch_size);
    choose_moments(options.adamw, options.optim, options.output);
    const double estimate =
        tell_memory(training_memory(model, largest.rows, largest.length, options.adamw), largest, other_memory);

    options.loader.shuffle = !options.no_shuffle;
    DataLoader loader(data, options.loader);
    TrainerOptions settings = trainer_options(options, loader, eval_data);
    if (options.saves() || checkpoint) {
        settings.settings = run_settings(options, app, config, data, eval_data);
    }
    AdamW<float> optimizer(parameter_groups(model, options.adamw.learning_rate, options.loraplus_lr_ratio),
                           options.adamw);
    const auto method = training_method(model, config, settings.max_steps);
    Trainer<T, Cpu, Gpt2<T>> trainer(model, loader, optimizer, settings, method.get());

    constexpr std::int64_t sample_tokens = 48;
    Reports reports(options, "Fine-tuning of " + base_model_name(options.model), reader, eval_data ? *eval_data : rows,
                    [&](const Sample& sample) { return continuation(model, sample, sample_tokens); });
    Progress progress(settings.max_steps, options.logging_steps);
    EarlyStopping early_stopping(std::max<std::int64_t>(1, options.early_stopping_patience),
                                 options.early_stopping_threshold);
    LossWatchdog watchdog([&](const std::string& message) {
        if (options.loss_watchdog == "stop") {
            throw NumericError(message);
        }
        progress.finish();
        say(stderr, "warning: {}\n", message);
    });
    FinetuneCallback<T> session(model, config, options, reader);
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
        say(stdout, "resumed from {} at step {} of {}\n", checkpoint->string(), trainer.steps(), settings.max_steps);
    } else if (options.saves() && std::filesystem::exists(options.output)) {
        AtomicDirectory(options.output).commit(); // checkpoints of another run have no place here
    }
    try {
        trainer.train(callbacks);
    } catch (const NumericError&) {
        require_finite_weights(model); // a tensor that is at fault says more
        throw;
    }
    if (trainer.steps() == 0) {
        say(stdout, "interrupted before the first step, nothing saved\n");
        return 130;
    }

    // Beside checkpoints the files of the output are put in place one by one; otherwise all at once.
    const bool beside = (options.saves() || checkpoint) && !checkpoint_steps(options.output).empty();
    const std::filesystem::path place(options.output);
    AtomicDirectory output(beside ? place / staging : place);
    save_trained(model, config, options, reader, output.path());
    const NamedValues in_effect = effective_options(options, app);
    reports.write(output.path(), in_effect, trainer.state());
    write_atomically(output.path() / "finetune.toml", config_text(in_effect));
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
    say(stdout, "{} after {} of {} steps{}: {}\n", how, trainer.steps(), settings.max_steps,
        trainer.skipped_steps() > 0 ? fmt::format(" ({} skipped)", trainer.skipped_steps()) : "", options.output);
    say(stdout, "peak memory {:.0f} MB, estimated {:.0f} MB\n", peak_memory_mb(), estimate);
    reports.require_complete();
    return interrupt.interrupted() ? 130 : 0;
}

} // namespace examples
