// The trainer: callbacks, evaluation, checkpoints, the best model, early stopping, and resume to the bit.

#include <cmath>
#include <doctest/doctest.h>
#include <functional>
#include <limits>
#include <set>

#include "io/temporary_directory.hpp"
#include "lowrank/nn/embedding.hpp"
#include "lowrank/ops/dropout.hpp"
#include "lowrank/ops/lm_head.hpp"
#include "lowrank/ops/reduce.hpp"
#include "lowrank/train/early_stopping.hpp"
#include "lowrank/train/fingerprint.hpp"
#include "lowrank/train/history.hpp"
#include "lowrank/train/trainer.hpp"
#include "lowrank/train/watchdog.hpp"

using namespace lowrank;

namespace {

/// The smallest model with dropout: an embedding and a head that share a matrix.
struct TinyModel {
    static constexpr std::int64_t vocabulary = 7, width = 4;
    Embedding<double, Cpu> embedding;

    TinyModel() {
        std::vector<double> values;
        for (int i = 0; i < vocabulary * width; ++i) {
            values.push_back(0.3 * std::sin(i * 1.7));
        }
        embedding.weight =
            WeightSlot<double, Cpu>(leaf(Tensor<double>::from(values, {vocabulary, width})), Orientation::out_in);
    }
    Tensor<double> loss(const Tensor<std::int32_t>& ids, const Tensor<std::int32_t>& labels,
                        const ForwardContext<Cpu>& context = {}) const {
        Tensor<double> x = reshape(embedding.forward(ids), {ids.numel(), width});
        if (context.training) {
            x = dropout(x, 0.2, context.seed, 1);
        }
        return lm_head_loss(x, embedding.weight, reshape(labels, {labels.numel()}));
    }
};

Dataset rows(std::int32_t count, std::int32_t factor) {
    Dataset data;
    for (std::int32_t i = 0; i < count; ++i) {
        Example row;
        for (std::int32_t j = 0; j < 3 + i % 3; ++j) {
            row.input_ids.push_back((i + factor * j) % 7);
            row.labels.push_back((i + factor * (j + 1)) % 7);
        }
        data.examples.push_back(row);
    }
    return data;
}

/// All that a run needs. 11 rows in steps of 2 × 2: 3 steps an epoch.
struct Run {
    Dataset data = rows(11, 2), eval_data = rows(4, 3);
    TinyModel model;
    DataLoader loader{data, LoaderOptions{.batch_size = 2, .accumulation_steps = 2, .seed = 5}};
    AdamW<double> optimizer;
    Trainer<double, Cpu, TinyModel> trainer;
    MetricsHistory history{1};

    explicit Run(const TrainerOptions& options, double learning_rate = 0.05,
                 TrainingMethod<double, Cpu>* method = nullptr)
        : optimizer({ParameterGroup<double>({model.embedding.weight.values()}, {"wte"})},
                    AdamWOptions{.learning_rate = learning_rate}),
          trainer(model, loader, optimizer, with_data(options), method) {}

    TrainerOptions with_data(TrainerOptions options) const {
        options.eval_data = options.eval_batch_size == 0 ? nullptr : &eval_data;
        options.schedule = {ScheduleKind::cosine, 3, options.max_steps};
        options.seed = 9;
        return options;
    }
    std::vector<double> weights() const { return model.embedding.weight.values().to_vector(); }
};

TrainerOptions run_options(std::int64_t max_steps, const std::filesystem::path& output = {}) {
    TrainerOptions options;
    options.max_steps = max_steps;
    options.output_dir = output;
    return options;
}

/// Writes down what happens, and may ask for something.
struct Diary : TrainerCallback {
    std::vector<std::string> entries;
    std::int64_t stop_at = -1, save_at = -1;

    void on_train_begin(TrainerState& s) override { entries.push_back(concat("begin ", s.step)); }
    void on_step_end(const StepMetrics& m, TrainerState& s) override {
        entries.push_back(concat("step ", m.step));
        s.should_stop = m.step == stop_at;
        s.should_save = s.should_save || m.step == save_at;
    }
    void on_epoch_end(TrainerState& s) override { entries.push_back(concat("epoch ", std::llround(s.epoch))); }
    void on_evaluate(const EvaluationMetrics& m, TrainerState&) override { entries.push_back(concat("eval ", m.step)); }
    void on_save(const std::filesystem::path& directory, json& kept) override {
        entries.push_back("save");
        kept["diary"] = entries.size();
        write_file(directory / "diary.txt", "dear diary");
    }
    void on_resume(const std::filesystem::path& directory, JsonReader& kept) override {
        entries.push_back(concat("resume ", kept.get_integer("diary"), " ", file_bytes(directory / "diary.txt")));
    }
    void on_train_end(TrainerState&) override { entries.push_back("end"); }
};

/// Pulls a parameter to 0, and writes down what it sees.
struct Pull : TrainingMethod<double, Cpu> {
    Tensor<double> parameter;
    double strength = 0.3;
    std::int64_t updates = 0, last_step = -1;
    double clip_factor = 0;
    std::vector<double> gradient, updated;

    Tensor<double> penalty() override { return sum(square(parameter)) * strength; }
    void after_update(std::int64_t step, const Gradients& gradients, double factor) override {
        ++updates;
        last_step = step;
        clip_factor = factor;
        gradient = gradients[parameter].to_vector();
        updated = parameter.to_vector();
    }
    void save(const std::filesystem::path& directory, json& kept) override {
        kept["updates"] = updates;
        write_file(directory / "pull.txt", std::to_string(updates));
    }
    void resume(const std::filesystem::path& directory, JsonReader& kept) override {
        updates = kept.get_integer("updates");
        CHECK(file_bytes(directory / "pull.txt") == std::to_string(updates));
    }
};

std::vector<std::string> names_in(const std::filesystem::path& directory) {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
        names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
}

} // namespace

TEST_CASE("callbacks hear of everything in order, and steer") {
    const TemporaryDirectory directory;
    TrainerOptions options = run_options(20, directory.path());
    options.evaluate.steps = 2;
    Run run(options);
    Diary diary;
    diary.save_at = 2;
    diary.stop_at = 5;
    run.trainer.train({&diary});
    CHECK(diary.entries == std::vector<std::string>{"begin 0", "step 1", "step 2", "eval 2", "save", "step 3",
                                                    "epoch 1", "step 4", "eval 4", "step 5", "eval 5", "end"});
    CHECK(names_in(directory / "checkpoint-2") ==
          std::vector<std::string>{"diary.txt", "optimizer.safetensors", "trainer_state.json"});

    Run again(options);
    Diary other;
    again.trainer.resume(directory / "checkpoint-2", {&other});
    CHECK(other.entries == std::vector<std::string>{"resume 5 dear diary"});
    CHECK(again.trainer.steps() == 2);
    CHECK(again.trainer.state().best_step == 2);

    TrainerOptions epochs = run_options(7, directory / "epochs");
    epochs.evaluate.epochs = epochs.save.epochs = true;
    Run third(epochs);
    Diary last;
    third.trainer.train({&last});
    CHECK(last.entries == std::vector<std::string>{"begin 0", "step 1", "step 2", "step 3", "epoch 1", "eval 3", "save",
                                                   "step 4", "step 5", "step 6", "epoch 2", "eval 6", "save", "step 7",
                                                   "eval 7", "end"});
    CHECK(steps_for_epochs(third.loader, 1.5) == 5);
    CHECK(steps_for_epochs(third.loader, 0.01) == 1);
}

TEST_CASE("a resumed run ends with the bits of one that never stopped, wherever it stopped") {
    constexpr std::int64_t steps = 14;
    const TemporaryDirectory directory;
    TrainerOptions options = run_options(steps, directory / "straight");
    options.evaluate.steps = 4;
    options.load_best_model_at_end = true;
    Run straight(options);
    LossWatchdog quiet([](const std::string& message) { FAIL(message); });
    EarlyStopping patient(3);
    straight.trainer.train({&straight.history, &quiet, &patient});
    REQUIRE(straight.trainer.steps() == steps);
    for (std::int64_t stop = 1; stop < steps; ++stop) {
        CAPTURE(stop);
        options.output_dir = directory / std::to_string(stop);
        options.save.steps = steps + 1; // only where the run ends early
        {
            Run first(options);
            Diary stopper;
            stopper.stop_at = stop;
            EarlyStopping early(3);
            LossWatchdog watchdog([](const std::string&) {});
            first.trainer.train({&first.history, &watchdog, &early, &stopper});
        }
        Run second(options);
        EarlyStopping early(3);
        LossWatchdog watchdog([](const std::string&) {});
        const std::vector<TrainerCallback*> callbacks = {&second.history, &watchdog, &early};
        second.trainer.resume(latest_checkpoint(options.output_dir).value(), callbacks);
        CHECK(second.trainer.steps() == stop);
        second.trainer.train(callbacks);
        CHECK(second.weights() == straight.weights());
        CHECK(second.trainer.state().best_loss == straight.trainer.state().best_loss);
        REQUIRE(second.history.steps().size() == straight.history.steps().size());
        for (std::size_t i = 0; i < second.history.steps().size(); ++i) {
            CHECK(second.history.steps()[i].loss == straight.history.steps()[i].loss);
            CHECK(second.history.steps()[i].learning_rate == straight.history.steps()[i].learning_rate);
            CHECK(second.history.steps()[i].epoch == straight.history.steps()[i].epoch);
        }
        CHECK(second.history.evaluations().size() == straight.history.evaluations().size());
    }
}

TEST_CASE("a method's penalty counts once a step, beside the loss, and its work follows the update") {
    TrainerOptions options = run_options(20);
    options.max_grad_norm = 0.05;
    Run plain(options);
    struct Look : Pull {
        Tensor<double> penalty() override { return {}; }
    } look;
    Run watched(options, 0.05, &look);
    Pull pull;
    Run pulled(options, 0.05, &pull);
    look.parameter = watched.model.embedding.weight.values();
    pull.parameter = pulled.model.embedding.weight.values();
    const std::vector<double> start = pulled.weights();
    const StepMetrics without = plain.trainer.step(), with = pulled.trainer.step();
    watched.trainer.step();
    CHECK(plain.weights() == watched.weights());
    CHECK(with.loss == without.loss);
    CHECK(without.penalty == 0);
    CHECK(metrics_line(without).find("penalty") == std::string::npos);
    CHECK(metrics_line(with).find("\"penalty\":") != std::string::npos);
    double squares = 0;
    for (std::size_t i = 0; i < start.size(); ++i) {
        squares += start[i] * start[i];
        CHECK(pull.gradient[i] == doctest::Approx(look.gradient[i] + 2 * pull.strength * start[i]));
    }
    CHECK(with.penalty == doctest::Approx(pull.strength * squares));
    CHECK(with.grad_norm != without.grad_norm);
    CHECK(pull.clip_factor == doctest::Approx(options.max_grad_norm / (with.grad_norm + 1e-6)));
    CHECK(pull.last_step == 0);
    pull.strength = std::nan("");
    CHECK(pulled.trainer.step().skipped);
    CHECK(pull.updates == 1); // nothing was updated
    pull.strength = 0.3;
    CHECK_FALSE(pulled.trainer.step().skipped);
    CHECK(pull.last_step == 2);
    CHECK(pull.updated == pulled.weights());
    CHECK(pull.updated != start);

    const TemporaryDirectory directory;
    pulled.trainer.save_checkpoint(directory / "checkpoint-3");
    Pull later;
    Run again(options, 0.05, &later);
    again.trainer.resume(directory / "checkpoint-3");
    CHECK(later.updates == 2);
    later.parameter = again.model.embedding.weight.values();
    again.trainer.step();
    pulled.trainer.step();
    CHECK(again.weights() == pulled.weights());
}

TEST_CASE("the best model is loaded at the end, and limits spare its checkpoint") {
    const TemporaryDirectory directory;
    TrainerOptions options = run_options(30, directory.path());
    options.evaluate.steps = 1;
    options.save.steps = 5;
    options.save_total_limit = 2;
    options.load_best_model_at_end = true;
    Pull pull;
    pull.strength = 0;
    Run run(options, 0.3, &pull); // the evaluation has another rule than the training: it gets worse with time
    pull.parameter = run.model.embedding.weight.values();
    run.trainer.train({&run.history});
    const TrainerState& state = run.trainer.state();
    double best = std::numeric_limits<double>::infinity();
    std::int64_t best_step = 0;
    for (const EvaluationMetrics& m : run.history.evaluations()) {
        if (m.loss < best) {
            best = m.loss, best_step = m.step;
        }
    }
    REQUIRE(best_step < 20);
    CHECK(*state.best_loss == best);
    CHECK(state.best_step == best_step);
    CHECK(checkpoint_steps(directory.path()) == std::vector<std::int64_t>{best_step, 25, 30});
    CHECK(evaluate<Cpu>(run.model, run.eval_data, 8) == best);
    CHECK(pull.updates == best_step); // what a method knows goes with the parameters

    Run stopped(run_options(30), 0.3);
    TrainerOptions early_options = run_options(30);
    early_options.evaluate.steps = 1;
    Run early(early_options, 0.3);
    EarlyStopping patience(3);
    early.trainer.train({&patience});
    CHECK(patience.stopped());
    CHECK(early.trainer.steps() == best_step + 3);
    CHECK_THROWS_AS(EarlyStopping(0), OptionError);
    CHECK_THROWS_AS(EarlyStopping(1, -1), OptionError);
}

TEST_CASE("an improvement below the threshold is none") {
    EarlyStopping early(2, 0.1);
    TrainerState state;
    const auto evaluated = [&](double loss) {
        EvaluationMetrics metrics;
        metrics.loss = loss;
        early.on_evaluate(metrics, state);
        state.best_loss = std::min(loss, state.best_loss.value_or(loss));
        return state.should_stop;
    };
    CHECK_FALSE(evaluated(3));
    CHECK_FALSE(evaluated(2.95));
    CHECK_FALSE(evaluated(2.8)); // 0.15 below the best
    CHECK_FALSE(evaluated(2.75));
    CHECK(evaluated(2.7));
}

TEST_CASE("the watchdog reports a divergence once, and neither one hard batch nor noise") {
    std::vector<std::string> reports;
    LossWatchdog dog([&](const std::string& message) { reports.push_back(message); });
    TrainerState state;
    std::int64_t step = 0;
    const auto seen = [&](double loss) {
        StepMetrics metrics;
        metrics.step = ++step;
        metrics.loss = loss;
        dog.on_step_end(metrics, state);
    };
    for (int i = 0; i < 200; ++i) {
        seen(3 - 0.005 * i + 0.3 * std::sin(i * 12.9));
    }
    seen(40);
    seen(2);
    seen(30), seen(30);
    CHECK(reports.empty());
    for (int i = 0; i < 10; ++i) {
        seen(10.0 + i);
    }
    REQUIRE(reports.size() == 1);
    CHECK(reports[0].find("the loss diverges: 10") == 0);
    CHECK(reports[0].find("at step 205") != std::string::npos);
    seen(2);
    seen(20), seen(20), seen(20);
    CHECK(reports.size() == 2);
}

TEST_CASE("a run resumes with its own settings and whole files only") {
    const TemporaryDirectory directory;
    TrainerOptions options = run_options(4, directory.path());
    options.save.steps = 2;
    options.settings = {{"data", fingerprint(rows(11, 2))}, {"rank", "8"}};
    Run(options).trainer.train();
    const std::filesystem::path checkpoint = directory / "checkpoint-2";
    const auto resumed = [&](const TrainerOptions& other, double learning_rate = 0.05) {
        const auto attempt = [&] { Run(other, learning_rate).trainer.resume(checkpoint); };
        return message_of<Error>(attempt);
    };
    CHECK(resumed(options) == "");
    TrainerOptions other = options;
    other.settings = {{"data", fingerprint(rows(11, 3))}, {"rank", "4"}, {"use-rslora", "true"}};
    CHECK(resumed(other, 0.01) ==
          concat(checkpoint.string(), ": a run resumes with the settings that it began with: data was ",
                 options.settings["data"], " and is ", other.settings["data"],
                 "; learning-rate was 0.05 and is 0.01; rank was 8 and is 4; use-rslora was not set and is true"));
    other = options;
    other.max_steps = 5;
    CHECK(resumed(other).find("max-steps was 4 and is 5") != std::string::npos);

    const auto broken = [&](const char* file, const std::function<std::string(std::string)>& change) {
        const std::string whole = file_bytes(checkpoint / file);
        write_file(checkpoint / file, change(whole));
        const std::string message = resumed(options);
        write_file(checkpoint / file, whole);
        return message;
    };
    const auto has = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
    CHECK(has(broken("optimizer.safetensors", [](std::string s) { return s.substr(0, s.size() - 8); }),
              "within the 664 bytes of data"));
    const auto replaced = [](const std::string& from, const std::string& to) {
        return [=](std::string s) { return s.replace(s.find(from), from.size(), to); };
    };
    CHECK(has(broken("optimizer.safetensors", replaced("exp_avg.wte", "exp_avg.wxe")), "\"exp_avg.wte\""));
    CHECK(has(broken("optimizer.safetensors",
                     replaced("parameter.wte\":{\"dtype\":\"F64", "parameter.wte\":{\"dtype\":\"I64")),
              "found type I64, expected F64"));
    CHECK(
        has(broken("trainer_state.json", [](std::string s) { return s.substr(0, 100); }), "trainer_state.json: line "));
    CHECK(has(broken("trainer_state.json", replaced("\"wte\": 2", "\"wxe\": 2")), "'wte' has no count"));
    CHECK(
        has(broken("trainer_state.json", replaced("\"row\": 8", "\"row\": 7")), "data position: found epoch 0, row 7"));
    CHECK(has(broken("trainer_state.json", replaced("\"micro_batches\": 4", "\"micro_batches\": -4")),
              "key 'micro_batches': found -4"));
    CHECK(
        has(broken("trainer_state.json", replaced("\"global_step\": 2,", "")), "key 'global_step': found no such key"));
    CHECK(resumed(options) == "");
}

TEST_CASE("options that do not go together are refused") {
    const auto refused = [](TrainerOptions options) {
        return message_of<OptionError>([&] { Run(options).trainer.train(); });
    };
    CHECK(refused(run_options(0)) == "trainer: found max_steps 0, expected 1 or more");
    TrainerOptions options = run_options(2);
    options.save.steps = 1;
    CHECK(refused(options).find("no output directory") != std::string::npos);
    options = run_options(2, "somewhere");
    options.load_best_model_at_end = true;
    options.eval_batch_size = 0; // here: no data
    CHECK(refused(options).find("no evaluation data") != std::string::npos);
}

TEST_CASE("what a killed run leaves is no checkpoint, and is removed") {
    const TemporaryDirectory directory;
    TrainerOptions options = run_options(4, directory.path());
    options.save.steps = 2;
    Run(options).trainer.train();
    for (const char* name :
         {"checkpoint-9.tmp-12-0", "final.tmp-1-1", "checkpoint-8", "other.tmp-1-1", "checkpoint-x"}) {
        std::filesystem::create_directories(directory / name);
        write_file(directory / name / "optimizer.safetensors", "half of it");
    }
    CHECK(checkpoint_steps(directory.path()) == std::vector<std::int64_t>{2, 4});
    CHECK(*latest_checkpoint(directory.path()) == directory / "checkpoint-4");
    CHECK_FALSE(latest_checkpoint(directory / "nowhere"));
    remove_leftovers(directory.path(), "final");
    remove_leftovers(directory / "nowhere", "final");
    CHECK(names_in(directory.path()) ==
          std::vector<std::string>{"checkpoint-2", "checkpoint-4", "checkpoint-8", "checkpoint-x", "other.tmp-1-1"});
    limit_checkpoints(directory.path(), 1, 2, 0); // what is beyond step 2 belongs to another end of the run
    CHECK(checkpoint_steps(directory.path()) == std::vector<std::int64_t>{2, 4});
    limit_checkpoints(directory.path(), 1, 4, 0);
    CHECK(checkpoint_steps(directory.path()) == std::vector<std::int64_t>{4});
    CHECK(names_in(directory.path()).size() == 4);
}

TEST_CASE("fingerprints tell rows, labels and documents apart") {
    const Dataset base = rows(5, 2);
    CHECK(fingerprint(base) == fingerprint(rows(5, 2)));
    std::set<std::string> all = {fingerprint(base), fingerprint(rows(5, 3)), fingerprint(rows(4, 2))};
    Dataset changed = base;
    changed.examples[4].labels[1] = ignored_label;
    all.insert(fingerprint(changed));
    changed = base;
    std::swap(changed.examples[0], changed.examples[3]);
    all.insert(fingerprint(changed));
    changed = base;
    changed.examples[0].document_starts = {0, 2};
    all.insert(fingerprint(changed));
    CHECK(all.size() == 6);
}
