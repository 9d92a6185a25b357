// The trainer: optimizer steps over a data loader; and whole runs with evaluation, callbacks, checkpoints and resume.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/autograd/backward.hpp"
#include "lowrank/core/random.hpp"
#include "lowrank/data/loader.hpp"
#include "lowrank/io/atomic_directory.hpp"
#include "lowrank/nn/context.hpp"
#include "lowrank/ops/elementwise.hpp"
#include "lowrank/optim/adamw.hpp"
#include "lowrank/optim/clip.hpp"
#include "lowrank/optim/schedule.hpp"
#include "lowrank/train/callback.hpp"
#include "lowrank/train/checkpoint.hpp"
#include "lowrank/train/evaluate.hpp"
#include "lowrank/train/metrics.hpp"
#include "lowrank/train/optimizer_file.hpp"
#include "lowrank/train/process_memory.hpp"
#include "lowrank/train/training_method.hpp"

namespace lowrank {

/// When something happens in a run: every so many steps, at the end of each epoch, both, or never.
struct Interval {
    std::int64_t steps = 0; ///< 0: not by steps
    bool epochs = false;

    bool due(std::int64_t step, bool epoch_ended) const {
        return (steps > 0 && step % steps == 0) || (epochs && epoch_ended);
    }
    bool ever() const { return steps > 0 || epochs; }
};

/// Settings of training beside the optimizer's own. Trainer::step needs the first three.
struct TrainerOptions {
    Schedule schedule{};      ///< of the learning rate
    double max_grad_norm = 1; ///< gradients are scaled down to this global norm; 0 leaves them
    std::uint64_t seed = 0;   ///< of dropout

    std::int64_t max_steps = 0;          ///< optimizer steps of the run; steps_for_epochs gives those of epochs
    const Dataset* eval_data = nullptr;  ///< evaluated at the end, and when `evaluate` says
    std::int64_t eval_batch_size = 8;    ///< rows
    Interval evaluate{};                 ///< beside the end
    std::filesystem::path output_dir{};  ///< where checkpoints go
    Interval save{};                     ///< when a checkpoint is written
    std::int64_t save_total_limit = 0;   ///< how many checkpoints are kept beside the best; 0: all
    bool load_best_model_at_end = false; ///< checkpoints of the best evaluations are written, and the best loaded
    RunSettings settings{};              ///< what a resumed run must have in common with the one that began
};

/// Optimizer steps of so many epochs, a fraction of a step rounded up; at least 1.
inline std::int64_t steps_for_epochs(const DataLoader& loader, double epochs) {
    return std::max<std::int64_t>(1, std::llround(std::ceil(epochs * static_cast<double>(loader.steps_per_epoch()))));
}

/// Trains a model on what a loader gives. M has `loss(ids, labels, context)`: the sum over supervised tokens. Model,
/// loader, optimizer and method, where there is one, belong to the caller and must outlive the trainer. Call `step` in
/// a loop of your own, or `train`.
template <class T, DeviceTag D, class M>
class Trainer {
  public:
    using C = compute_t<T>;

    Trainer(const M& model, DataLoader& loader, AdamW<C, D>& optimizer, const TrainerOptions& options,
            TrainingMethod<C, D>* method = nullptr)
        : model_(model),
          loader_(loader),
          optimizer_(optimizer),
          options_(options),
          method_(method) {
        state_.max_steps = options_.max_steps;
    }

    /// One optimizer step: the gradient of the mean loss over the supervised tokens of all its micro-batches, and of
    /// the method's penalty. A step whose loss or gradient is not finite updates nothing; the third one in a row throws
    /// NumericError, naming the first parameter concerned.
    StepMetrics step() {
        const auto start = std::chrono::steady_clock::now();
        StepMetrics metrics;
        const Step data = loader_.next();
        gradients_.zero();
        double loss_sum = 0;
        // Whatever changes from step to step reaches the kernels as a tensor.
        const auto weight = Tensor<C, D>::scalar(
            static_cast<C>(1.0 / static_cast<double>(std::max<std::int64_t>(1, data.supervised_tokens))));
        for (const Batch& batch : data.micro_batches) {
            ForwardContext<D> context;
            context.training = true;
            context.seed = Tensor<std::int64_t, D>::scalar(next_seed());
            context.document_start = detail::document_start_of<D>(batch);
            const Tensor<C, D> loss = model_.loss(detail::batch_tensor<D>(batch, batch.input_ids),
                                                  detail::batch_tensor<D>(batch, batch.labels), context);
            loss_sum += static_cast<double>(loss.item());
            if (loss.node()) { // nothing supervised, nothing to learn
                backward(loss * weight, gradients_);
            }
        }
        metrics.loss = loss_sum / static_cast<double>(std::max<std::int64_t>(1, data.supervised_tokens));
        const Tensor<C, D> penalty = method_ != nullptr ? method_->penalty() : Tensor<C, D>();
        if (penalty.defined()) {
            metrics.penalty = static_cast<double>(penalty.item());
            backward(penalty, gradients_);
        }
        const GradientNorm norm = gradient_norm(optimizer_.parameters(), gradients_);
        metrics.grad_norm = norm.value;
        const double factor = options_.schedule.factor(state_.step);
        metrics.learning_rate = optimizer_.options().learning_rate * factor;
        metrics.skipped = !std::isfinite(metrics.loss + metrics.penalty) || norm.first_nonfinite.has_value();
        if (metrics.skipped) {
            watch(metrics, norm);
        } else {
            skipped_in_a_row_ = 0;
            const double clip_factor = norm.clip_factor(options_.max_grad_norm);
            optimizer_.step(gradients_, factor, clip_factor);
            if (method_ != nullptr) {
                method_->after_update(state_.step, gradients_, clip_factor);
            }
        }
        metrics.step = ++state_.step;
        metrics.epoch = state_.epoch = loader_.epochs_done();
        metrics.tokens = data.tokens;
        metrics.peak_memory_mb = peak_memory_mb();
        metrics.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        return metrics;
    }

    /// The steps from where the run stands to `max_steps`, or until a callback asks for an end. After each step come
    /// the callbacks, then an evaluation and a checkpoint where they are due. A run that ends early evaluates once more
    /// and, where checkpoints are written at all, leaves one to resume from. Throws OptionError for options that do not
    /// go together, and what steps, callbacks and files throw.
    const TrainerState& train(const std::vector<TrainerCallback*>& callbacks = {}) {
        check_options();
        state_.should_stop = false;
        notify(callbacks, &TrainerCallback::on_train_begin, state_);
        while (state_.step < state_.max_steps && !state_.should_stop) {
            const StepMetrics metrics = step();
            const bool last = state_.step == state_.max_steps, epoch_ended = loader_.position().row == 0;
            state_.should_evaluate = last || options_.evaluate.due(state_.step, epoch_ended);
            state_.should_save = options_.save.due(state_.step, epoch_ended);
            notify(callbacks, &TrainerCallback::on_step_end, metrics, state_);
            if (epoch_ended) {
                notify(callbacks, &TrainerCallback::on_epoch_end, state_);
            }
            if (state_.should_evaluate && options_.eval_data != nullptr) {
                run_evaluation(callbacks);
            }
            if (state_.should_save || (state_.should_stop && !last && options_.save.ever())) {
                save_checkpoint(checkpoint_path(options_.output_dir, state_.step), callbacks);
                if (options_.save_total_limit > 0) {
                    limit_checkpoints(options_.output_dir, options_.save_total_limit, state_.step, state_.best_step);
                }
            }
        }
        if (options_.eval_data != nullptr && state_.step > 0 && state_.evaluated_step != state_.step) {
            notify(callbacks, &TrainerCallback::on_evaluate, evaluate_now(), state_);
        }
        if (options_.load_best_model_at_end && state_.best_loss && state_.best_step != state_.step) {
            const auto best = checkpoint_path(options_.output_dir, state_.best_step);
            read_parameters(optimizer_, SafetensorsFile::open((best / optimizer_file).string()));
            resume_method(best, JsonReader::open(best / trainer_state_file));
        }
        notify(callbacks, &TrainerCallback::on_train_end, state_);
        return state_;
    }

    /// Writes all that `resume` needs to continue with the same bits, and what the callbacks add, as a directory that
    /// appears complete or not at all. Between steps. Throws NumericError for a parameter that is not finite,
    /// FileError.
    void save_checkpoint(const std::filesystem::path& directory, const std::vector<TrainerCallback*>& callbacks = {}) {
        AtomicDirectory output(directory);
        json kept = json::object();
        for (TrainerCallback* callback : callbacks) {
            callback->on_save(output.path(), kept);
        }
        json of_method = json::object();
        if (method_ != nullptr) {
            method_->save(output.path(), of_method);
        }
        write_optimizer(optimizer_, output.path() / optimizer_file);
        const DataPosition position = loader_.position();
        const json state = {{"global_step", state_.step},
                            {"max_steps", state_.max_steps},
                            {"epoch", state_.epoch},
                            {"data_position", {{"epoch", position.epoch}, {"row", position.row}}},
                            {"micro_batches", micro_batches_},
                            {"skipped_steps", state_.skipped_steps},
                            {"skipped_in_a_row", skipped_in_a_row_},
                            {"best_metric", state_.best_loss ? json(*state_.best_loss) : json()},
                            {"best_global_step", state_.best_step},
                            {"evaluated_step", state_.evaluated_step},
                            {"optimizer_steps", update_counts(optimizer_)},
                            {"settings", all_settings()},
                            {"method", of_method},
                            {"callbacks", kept}};
        write_atomically(output.path() / trainer_state_file,
                         state.dump(2, ' ', false, json::error_handler_t::replace) + "\n");
        output.commit();
    }

    /// Continues from a checkpoint: parameters, optimizer, method, schedule, position in the data, random numbers, the
    /// best evaluation and the callbacks are what they were when it was written. Throws OptionError where a setting is
    /// another than then, and FileError for a checkpoint that is not whole; the trainer is of no use then.
    void resume(const std::filesystem::path& directory, const std::vector<TrainerCallback*>& callbacks = {}) {
        JsonReader from = JsonReader::open(directory / trainer_state_file);
        const auto strings = [](JsonReader object) {
            RunSettings settings;
            for (const std::string& key : object.keys()) {
                settings[key] = object.get_string(key);
            }
            return settings;
        };
        require_same_settings(directory, strings(from.get_object("settings")), all_settings());
        state_.step = from.get_integer("global_step", 0);
        state_.epoch = from.get_number("epoch", 0);
        JsonReader position = from.get_object("data_position");
        loader_.seek({position.get_integer("epoch", 0), position.get_integer("row", 0)});
        micro_batches_ = static_cast<std::uint64_t>(from.get_integer("micro_batches", 0));
        state_.skipped_steps = from.get_integer("skipped_steps", 0);
        skipped_in_a_row_ = from.get_integer("skipped_in_a_row", 0);
        if (from.has("best_metric")) {
            state_.best_loss = from.get_number("best_metric");
        }
        state_.best_step = from.get_integer("best_global_step", 0);
        state_.evaluated_step = from.get_integer("evaluated_step", -1);
        std::map<std::string, std::int64_t> counts;
        JsonReader steps = from.get_object("optimizer_steps");
        for (const std::string& name : steps.keys()) {
            counts[name] = steps.get_integer(name, 0);
        }
        read_optimizer(optimizer_, SafetensorsFile::open((directory / optimizer_file).string()), counts);
        resume_method(directory, from);
        JsonReader kept = from.get_object("callbacks");
        for (TrainerCallback* callback : callbacks) {
            callback->on_resume(directory, kept);
        }
    }

    const TrainerState& state() const { return state_; }
    std::int64_t steps() const { return state_.step; }
    std::int64_t skipped_steps() const { return state_.skipped_steps; }

  private:
    void resume_method(const std::filesystem::path& directory, JsonReader from) {
        if (method_ != nullptr) {
            JsonReader kept = from.get_object("method");
            method_->resume(directory, kept);
        }
    }

    /// A seed for each micro-batch, from the run's seed and a counter.
    std::int64_t next_seed() {
        const PhiloxBlock block = random_block(options_.seed, 0x5eed, micro_batches_++);
        return static_cast<std::int64_t>((std::uint64_t(block[0]) << 32) | block[1]);
    }

    void watch(const StepMetrics& metrics, const GradientNorm& norm) {
        constexpr int patience = 3;
        ++state_.skipped_steps;
        if (++skipped_in_a_row_ < patience) {
            return;
        }
        const std::string where = norm.first_nonfinite
                                      ? concat("the gradient of ", optimizer_.name(*norm.first_nonfinite))
                                      : std::string("the loss");
        throw NumericError(concat("training: ", where, " was not finite for ", patience, " steps in a row (loss ",
                                  metrics.loss, " at step ", state_.step + 1, "); a lower learning rate may help"));
    }

    void check_options() const {
        if (state_.max_steps < 1) {
            throw OptionError(concat("trainer: found max_steps ", state_.max_steps, ", expected 1 or more"));
        }
        const bool saves = options_.save.ever() || options_.load_best_model_at_end;
        if (saves && options_.output_dir.empty()) {
            throw OptionError("trainer: checkpoints are asked for, but no output directory is given");
        }
        if (options_.load_best_model_at_end && options_.eval_data == nullptr) {
            throw OptionError("trainer: the best model is asked for, but no evaluation data is given");
        }
    }

    EvaluationMetrics evaluate_now() {
        return {state_.step, state_.epoch, evaluate<D>(model_, *options_.eval_data, options_.eval_batch_size)};
    }

    void run_evaluation(const std::vector<TrainerCallback*>& callbacks) {
        const EvaluationMetrics metrics = evaluate_now();
        state_.evaluated_step = state_.step;
        notify(callbacks, &TrainerCallback::on_evaluate, metrics, state_);
        if (std::isfinite(metrics.loss) && (!state_.best_loss || metrics.loss < *state_.best_loss)) {
            state_.best_loss = metrics.loss;
            state_.best_step = state_.step;
            state_.should_save = state_.should_save || options_.load_best_model_at_end;
        }
    }

    template <class Method, class... Arguments>
    static void notify(const std::vector<TrainerCallback*>& callbacks, Method method, Arguments&&... arguments) {
        for (TrainerCallback* callback : callbacks) {
            (callback->*method)(arguments...);
        }
    }

    /// The caller's settings, and those that the trainer knows itself, unless the caller's has the name.
    RunSettings all_settings() const {
        const AdamWOptions& adamw = optimizer_.options();
        const auto exact = [](double value) { return json(value).dump(); };
        RunSettings settings = options_.settings;
        settings.insert({{"learning-rate", exact(adamw.learning_rate)},
                         {"adam-beta1", exact(adamw.beta1)},
                         {"adam-beta2", exact(adamw.beta2)},
                         {"adam-epsilon", exact(adamw.epsilon)},
                         {"weight-decay", exact(adamw.weight_decay)},
                         {"lr-scheduler-type", std::string(name_of(options_.schedule.kind))},
                         {"warmup-steps", std::to_string(options_.schedule.warmup_steps)},
                         {"max-steps", std::to_string(state_.max_steps)},
                         {"max-grad-norm", exact(options_.max_grad_norm)},
                         {"seed", std::to_string(options_.seed)}});
        return settings;
    }

    const M& model_;
    DataLoader& loader_;
    AdamW<C, D>& optimizer_;
    TrainerOptions options_;
    TrainingMethod<C, D>* method_;
    Gradients gradients_;
    TrainerState state_;
    std::int64_t skipped_in_a_row_ = 0;
    std::uint64_t micro_batches_ = 0;
};

} // namespace lowrank
