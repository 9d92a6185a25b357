// search: looks for good settings of LoRA by random search or successive halving, over one base model.

#include <cmath>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

#include "config_file.hpp"
#include "data_options.hpp"
#include "lowrank/io/atomic_directory.hpp"
#include "lowrank/io/json.hpp"
#include "model.hpp"
#include "number.hpp"
#include "output.hpp"
#include "program.hpp"
#include "say.hpp"
#include "search/report.hpp"
#include "search/trials.hpp"

using namespace lowrank;

namespace {

using Options = examples::SearchOptions;

/// The options in effect, without those of a pair that the other one of it displaces.
examples::NamedValues effective_options(const Options& options, const examples::Program& app,
                                        std::vector<std::string> left_out) {
    if (!options.eval_data.empty()) {
        left_out.push_back("--eval-split");
    }
    if (!options.lora_alpha.empty()) {
        left_out.push_back("--lora-alpha-ratio");
    }
    return examples::ConfigFile(app).in_effect(left_out);
}

/// The options with which finetune repeats a trial.
examples::NamedValues finetune_options(const examples::TrialRecord& trial, const Options& options,
                                       const examples::Program& app) {
    examples::NamedValues values =
        effective_options(options, app,
                          {"--output", "--overwrite-output-dir", "--method", "--trials", "--max-steps", "--min-steps",
                           "--reduction-factor", "--r", "--lora-alpha", "--lora-alpha-ratio", "--learning-rate",
                           "--lora-dropout", "--loraplus-lr-ratio", "--target-modules"});
    const examples::TrialSettings& s = trial.settings;
    const examples::NamedValues of_trial = {{"r", fmt::format("{}", s.r)},
                                            {"lora-alpha", fmt::format("{}", s.lora_alpha)},
                                            {"learning-rate", fmt::format("{}", s.learning_rate)},
                                            {"lora-dropout", fmt::format("{}", s.lora_dropout)},
                                            {"loraplus-lr-ratio", fmt::format("{}", s.loraplus_lr_ratio)},
                                            {"target-modules", json(s.target_modules).dump()},
                                            {"lr-scheduler-type", "\"constant_with_warmup\""},
                                            {"max-steps", fmt::format("{}", trial.steps())}};
    values.insert(values.end(), of_trial.begin(), of_trial.end());
    return values;
}

int search(Options& options, const examples::Program& app) {
    if (app.count("--eval-split") > 0 && !options.eval_data.empty()) {
        throw OptionError("--eval-split: found --eval-data too, expected one of them");
    }
    examples::check_output(
        options.output, options.overwrite,
        {{"--model", options.model.model}, {"--data", options.data}, {"--eval-data", options.eval_data}});
    examples::Model model = examples::load_model(options.model);
    examples::DataReader reader(options.choices, options.model, "", model.config);
    const DatasetSplit data =
        reader.read_split(options.data, options.eval_data, options.eval_split, options.loader.seed);
    reader.check_template();
    if (options.base_dropout == "none") {
        model.set_base_dropout(0, 0, 0);
    }
    model.gradient_checkpointing = options.gradient_checkpointing;
    examples::Trials trials(model, options, data, app);
    { AtomicDirectory trial(options.output); } // what cannot be written should be known before training

    const double base_loss = trials.base_loss();
    if (!std::isfinite(base_loss)) {
        examples::require_finite_weights(model); // a tensor that is at fault says more
        throw NumericError("the base model's evaluation loss is not finite");
    }
    std::string plan;
    for (const SearchRung& rung : trials.rungs()) {
        plan += fmt::format("{}{} up to step {}", plan.empty() ? "" : ", ", rung.trials, rung.steps);
    }
    examples::say(stdout, "{} rows to train on, {} to evaluate on; the base model's eval_loss is {:.4f}\ntrials: {}\n",
                  data.train.size(), data.eval.size(), base_loss, plan);
    std::fflush(stdout);
    const bool interrupted = trials.run();

    const std::vector<const examples::TrialRecord*> order = examples::ranking(trials.records());
    if (order.empty() || (interrupted && !std::isfinite(order.front()->loss()))) {
        examples::say(stdout, "interrupted before the first evaluation, nothing saved\n");
        return 130;
    }
    examples::say(stdout, "\n{}\n", examples::trial_table(order));
    AtomicDirectory output(options.output);
    std::string lines;
    for (const examples::TrialRecord* trial : order) {
        lines += examples::trial_line(*trial);
    }
    write_atomically(output.path() / "trials.jsonl", lines);
    write_atomically(output.path() / "search.svg",
                     examples::search_chart(order, base_loss, trials.rungs().front().steps));
    write_atomically(output.path() / "search.toml",
                     examples::config_text(effective_options(options, app, {"--overwrite-output-dir"})));
    const examples::TrialRecord& best = *order.front();
    if (!std::isfinite(best.loss())) {
        output.commit();
        throw NumericError(concat("every trial failed, the first one by: ", trials.records().front().error));
    }
    const std::filesystem::path directory = output.path() / "best";
    std::filesystem::create_directory(directory);
    trials.save(best, directory);
    examples::copy_text_files(options.model.model, directory);
    reader.save_template(directory);
    write_atomically(output.path() / "finetune.toml", examples::config_text(finetune_options(best, options, app)));
    output.commit();
    examples::say(stdout,
                  "{}best: trial {} ({}), eval_loss {:.4f} after {} steps: {}/best\n"
                  "To train it for longer: finetune --config {}/finetune.toml --output DIRECTORY --max-steps NUMBER\n",
                  interrupted ? "interrupted; " : "", best.number, best.settings.describe(), best.loss(), best.steps(),
                  options.output, options.output);
    return interrupted ? 130 : 0;
}

void add_options(CLI::App& app, Options& o) {
    using examples::number;
    constexpr std::int64_t most = 1 << 30;
    const auto counted = [&](const char* name, std::int64_t& value, std::int64_t least, const char* help) {
        app.add_option(name, value, help)->check(number<std::int64_t>(least, most));
    };
    examples::add_model_options(app, o.model, false);
    app.add_option("--data", o.data, fmt::format("training data: {}", examples::data_help))->required();
    app.add_option("--output", o.output,
                   "directory to write: trials.jsonl, search.svg, finetune.toml and the best adapter")
        ->required();
    app.add_flag("--overwrite-output-dir", o.overwrite, "replace an output directory that exists");
    examples::add_data_options(app, o.choices);
    app.add_option("--eval-data", o.eval_data, "data whose loss decides");
    app.add_option("--eval-split", o.eval_split, "without --eval-data: this part of --data decides, the rest trains")
        ->check(number(0.001, 0.999));
    counted("--eval-steps", o.eval_steps, 0, "evaluate every n steps too, for the chart; 0: at the end of each rung");

    app.add_option("--method", o.method, "all trials to the end, or the best of each rung to the next")
        ->check(CLI::IsMember({"random", "halving"}));
    app.add_option("--trials", o.trials, "settings to try")->check(number<std::int64_t>(1, 100000));
    counted("--max-steps", o.max_steps, 1, "steps of a trial that is trained to the end");
    counted("--min-steps", o.min_steps, 1, "least steps of the first rung");
    app.add_option("--reduction-factor", o.reduction_factor,
                   "one in so many goes on to the next rung, of as many steps")
        ->check(number<std::int64_t>(2, 1000));
    examples::add_space_options(app, o);

    app.add_flag("--use-rslora", o.use_rslora, "scale by alpha/sqrt(r)");
    app.add_option("--base-dropout", o.base_dropout, "dropout of the base model: as its config.json says, or none")
        ->check(CLI::IsMember({"config", "none"}));
    counted("--warmup-steps", o.warmup_steps, 0, "steps in which the learning rate rises; then it is constant");
    examples::add_batch_options(app, o.loader, o.eval_batch_size);
    app.add_option("--weight-decay", o.weight_decay, "decoupled weight decay of every trained tensor")
        ->check(number(0.0));
    app.add_option("--max-grad-norm", o.max_grad_norm, "clip gradients to this norm; 0: do not")->check(number(0.0));
    app.add_flag("--gradient-checkpointing", o.gradient_checkpointing, "less memory for more time");
    app.add_option("--seed", o.loader.seed, "seed of the draws, and of factors, shuffling and dropout of every trial")
        ->check(number<std::uint64_t>(0));
}

} // namespace

int main(int argc, char** argv) {
    examples::Program app("Looks for good LoRA settings: trains many adapters a little, over one base model.");
    Options options;
    add_options(app, options);
    return app.run(argc, argv, [&] { return search(options, app); });
}
