// finetune: trains a LoRA, rsLoRA or DoRA adapter, or all weights, of a GPT-2 on a data file.

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "common.hpp"
#include "lowrank/data/describe.hpp"
#include "lowrank/data/load.hpp"
#include "lowrank/io/atomic_directory.hpp"
#include "lowrank/optim/loraplus.hpp"
#include "lowrank/text/load_tokenizer.hpp"
#include "lowrank/train/interrupt.hpp"
#include "lowrank/train/progress.hpp"
#include "lowrank/train/trainer.hpp"

using namespace lowrank;

namespace {

constexpr std::int64_t most_rank = 1 << 20; // what adapter_config.json may hold

struct Options {
    examples::ModelOptions model;
    std::string data, output, eval_data, init_adapter, columns, log_file, base_dropout = "config";
    bool overwrite = false;
    std::string method = "lora", bias = "none", init_lora_weights = "true";
    LoraConfig lora;
    std::vector<std::string> target_modules, exclude_modules, modules_to_save;
    std::vector<std::int64_t> layers_to_transform;
    std::vector<std::string> rank_pattern, alpha_pattern;
    AdamWOptions adamw{.learning_rate = 2e-4, .weight_decay = 0.0};
    double loraplus_lr_ratio = 0, max_grad_norm = 1;
    std::string scheduler = "linear";
    double warmup_ratio = 0, num_train_epochs = 3;
    std::int64_t warmup_steps = 0, max_steps = 0;
    LoaderOptions loader{.batch_size = 8};
    std::int64_t eval_batch_size = 8, eval_steps = 0, max_seq_length = 0, logging_steps = 10;
    bool no_shuffle = false, gradient_checkpointing = false;

    bool trains_all_weights() const { return method == "full"; }
};

/// "name=value" entries of a pattern option.
template <class Value>
std::vector<std::pair<std::string, Value>>
parse_pattern(const std::string& option, const std::vector<std::string>& entries, Value low, Value high) {
    std::vector<std::pair<std::string, Value>> pattern;
    for (const std::string& entry : entries) {
        const std::size_t equals = entry.rfind('=');
        const auto value = examples::read_number(entry.substr(std::min(equals, entry.size() - 1) + 1), low, high);
        if (equals == std::string::npos || equals == 0 || !value) {
            throw OptionError(fmt::format("{}: found '{}', expected module=number, the number from {} to {}", option,
                                          entry, low, high));
        }
        pattern.emplace_back(entry.substr(0, equals), *value);
    }
    return pattern;
}

/// A list of names; a single "all-linear" or a name with characters of a regular expression is a pattern.
std::optional<ModuleSelection> selection(const std::vector<std::string>& names) {
    if (names.empty()) {
        return std::nullopt;
    }
    if (names.size() == 1 &&
        (names[0] == "all-linear" || names[0].find_first_of("*+?[](){}|^$\\") != std::string::npos)) {
        return ModuleSelection(names[0]);
    }
    return ModuleSelection(names);
}

/// The model's directory as JSON can hold it: names of files need not be UTF-8.
std::string model_name(const Options& options) {
    std::string name;
    append_utf8_lossy(name, options.model.model, true);
    return name;
}

LoraConfig lora_config(const Options& options) {
    LoraConfig config = options.lora;
    config.use_dora = options.method == "dora";
    config.bias = options.bias == "all"         ? BiasMode::all
                  : options.bias == "lora_only" ? BiasMode::lora_only
                                                : BiasMode::none;
    config.init_lora_weights = options.init_lora_weights == "gaussian" ? LoraInit::gaussian
                               : options.init_lora_weights == "false"  ? LoraInit::random
                                                                       : LoraInit::kaiming;
    config.target_modules = selection(options.target_modules);
    config.exclude_modules = selection(options.exclude_modules);
    config.modules_to_save = options.modules_to_save;
    if (!options.layers_to_transform.empty()) {
        config.layers_to_transform = options.layers_to_transform;
    }
    constexpr double any = std::numeric_limits<double>::max();
    config.rank_pattern = parse_pattern("--rank-pattern", options.rank_pattern, std::int64_t(1), most_rank);
    config.alpha_pattern = parse_pattern("--alpha-pattern", options.alpha_pattern, -any, any);
    config.base_model_name_or_path = model_name(options);
    return config;
}

/// PEFT's rules pass over what matches nothing. On a command line that is a slip, and is refused.
void refuse_idle_choices(examples::Model& model, const Options& options, const LoraConfig& config) {
    const auto refuse = [](const std::string& option, const std::string& name, const std::string& what) {
        throw OptionError(option + ": '" + name + "' matches " + what);
    };
    std::vector<std::string> linears;
    for_each<Linear<float, Cpu>>(model, [&](const std::string& path, auto&) { linears.push_back(path); });
    const auto none_of = [](const std::vector<std::string>& paths, const LoraConfig& one) {
        return std::none_of(paths.begin(), paths.end(),
                            [&](const std::string& path) { return targets_module(one, path, false, {}); });
    };
    const auto choice = [](const ModuleSelection& modules) {
        LoraConfig one;
        one.target_modules = modules;
        return one;
    };
    for (const std::string& name : options.target_modules) {
        if (none_of(linears, choice(*selection({name})))) {
            refuse("--target-modules", name, "no linear layer of the model");
        }
    }
    for (const std::string& name : options.exclude_modules) {
        if (none_of(linears, choice(*selection({name}))) && !model.is_head(name)) {
            refuse("--exclude-modules", name, "no linear layer of the model");
        }
    }
    for (const std::int64_t layer : options.layers_to_transform) {
        if (layer >= model.config.n_layer) {
            refuse("--layers-to-transform", std::to_string(layer),
                   concat("none of the layers 0 to ", model.config.n_layer - 1));
        }
    }
    const std::vector<std::string> adapted = target_paths<float, Cpu>(model, config);
    const auto check_pattern = [&](const std::string& option, const auto& pattern) {
        for (const auto& entry : pattern) {
            if (none_of(adapted, choice("(.*\\.)?(" + entry.first + ")"))) {
                refuse(option, entry.first, "no adapted layer");
            }
        }
    };
    check_pattern("--rank-pattern", config.rank_pattern);
    check_pattern("--alpha-pattern", config.alpha_pattern);
}

/// Makes the model ready for training and returns the adapter's settings.
LoraConfig prepare(examples::Model& model, const Options& options, const CLI::App& app) {
    if (options.trains_all_weights()) {
        for_each_parameter(model, [](const std::string&, auto& field) { set_trainable(field, true); });
        return {};
    }
    if (!options.init_adapter.empty()) {
        return load_adapter<float, Cpu>(model, options.init_adapter, [&](LoraConfig& loaded) {
            loaded.base_model_name_or_path = model_name(options);
            if (app.count("--lora-dropout") > 0) {
                loaded.lora_dropout = options.lora.lora_dropout;
            }
        });
    }
    const LoraConfig config = lora_config(options);
    validate(config, "LoRA settings");
    refuse_idle_choices(model, options, config);
    attach_lora<float, Cpu>(model, config, options.loader.seed);
    return config;
}

/// The options that have no say: the file of --init-adapter decides, or --method full has no adapter.
std::vector<std::string> options_without_effect(const Options& options) {
    std::vector<std::string> names;
    if (!options.init_adapter.empty() || options.trains_all_weights()) {
        names = {"--r",
                 "--lora-alpha",
                 "--use-rslora",
                 "--bias",
                 "--target-modules",
                 "--exclude-modules",
                 "--modules-to-save",
                 "--layers-to-transform",
                 "--rank-pattern",
                 "--alpha-pattern",
                 "--init-lora-weights"};
        names.push_back(options.init_adapter.empty() ? "--lora-dropout" : "--method");
    }
    if (options.init_adapter.empty() && options.trains_all_weights()) {
        names.push_back("--loraplus-lr-ratio");
    }
    return names;
}

void refuse_contradictions(const Options& options, const CLI::App& app) {
    for (const std::string& name : options_without_effect(options)) {
        if (app.count(name) > 0) {
            throw OptionError(name + (options.init_adapter.empty()
                                          ? ": has no meaning with --method full; leave the option out"
                                          : ": the adapter of --init-adapter decides this; leave the option out"));
        }
    }
    if (options.eval_steps > 0 && options.eval_data.empty()) {
        throw OptionError("--eval-steps needs --eval-data");
    }
}

/// Reads data files with the model's limits; the tokenizer is loaded for text only.
class DataReader {
  public:
    DataReader(const Options& options, const Gpt2Config& config) : model_(options.model.model) {
        options_.columns = Columns::parse(options.columns);
        options_.n_positions = config.n_positions;
        options_.max_seq_length = options.max_seq_length ? options.max_seq_length : config.n_positions;
        options_.vocab_size = static_cast<std::int32_t>(config.vocab_size);
    }

    Dataset read(const std::string& path) {
        Dataset data = load_dataset(path, options_, [&](std::span<const Segment> segments) {
            if (!tokenizer_) {
                tokenizer_ = std::make_unique<Tokenizer>(Tokenizer::load(model_));
            }
            return encode_segments(*tokenizer_, segments);
        });
        const DataCounts& counts = data.counts;
        examples::say(stderr, "{}: {} rows from {} records", path, data.size(), counts.records);
        if (counts.truncated + counts.dropped > 0) {
            examples::say(stderr, ", {} truncated at {} tokens, {} dropped, {} tokens lost", counts.truncated,
                          options_.max_seq_length, counts.dropped, counts.cut_tokens);
        }
        examples::say(stderr, "\n");
        return data;
    }

    std::string describe(const Dataset& data) const {
        if (!tokenizer_) {
            return describe_sample(data, 0);
        }
        return describe_sample(data, 0, [&](std::span<const std::int32_t> ids) { return tokenizer_->decode(ids); });
    }

  private:
    std::string model_;
    DataOptions options_;
    std::unique_ptr<Tokenizer> tokenizer_;
};

/// One group, or with --loraplus-lr-ratio those of LoRA+.
std::vector<ParameterGroup<float>> parameter_groups(examples::Model& model, const Options& options) {
    ParameterGroup<float> all;
    for (const auto& tensor : trainable_tensors<float, Cpu>(model)) {
        all.parameters.push_back(tensor.values);
        all.names.push_back(tensor.name);
    }
    if (options.loraplus_lr_ratio == 0) {
        return {all};
    }
    return loraplus_groups(all.names, all.parameters, options.adamw.learning_rate, options.loraplus_lr_ratio);
}

/// The lines of metrics.jsonl: kept for the output, and written at once where --log-file says.
class MetricsLog {
  public:
    explicit MetricsLog(const std::string& path) {
        if (!path.empty()) {
            file_.open(path, std::ios::trunc);
            if (!file_) {
                throw FileError("--log-file: cannot write '" + path + "'");
            }
        }
    }
    void add(const std::string& line) {
        lines_ += line + "\n";
        if (file_.is_open()) {
            file_ << line << std::endl;
        }
    }
    const std::string& lines() const { return lines_; }
    /// Whether all lines are in the file.
    bool complete() const { return !file_.is_open() || file_.good(); }

  private:
    std::ofstream file_;
    std::string lines_;
};

int finetune(Options& options, const examples::Program& app) {
    refuse_contradictions(options, app);
    examples::check_output(options.output, options.overwrite,
                           {{"--model", options.model.model},
                            {"--data", options.data},
                            {"--eval-data", options.eval_data},
                            {"--log-file", options.log_file}});
    examples::Model model = examples::load_model(options.model);
    DataReader reader(options, model.config);
    const Dataset data = reader.read(options.data);
    const std::optional<Dataset> eval_data =
        options.eval_data.empty() ? std::nullopt : std::optional(reader.read(options.eval_data));
    examples::say(stderr, "{}", reader.describe(data));

    const LoraConfig config = prepare(model, options, app);
    if (options.base_dropout == "none") {
        model.set_base_dropout(0, 0, 0);
    }
    model.gradient_checkpointing = options.gradient_checkpointing;
    examples::say(stdout, "{}\n", describe(count_parameters<float, Cpu>(model)));

    options.loader.shuffle = !options.no_shuffle;
    DataLoader loader(data, options.loader);
    const auto epoch_steps = static_cast<double>(loader.steps_per_epoch());
    const std::int64_t steps =
        options.max_steps > 0
            ? options.max_steps
            : std::max<std::int64_t>(1, std::llround(std::ceil(options.num_train_epochs * epoch_steps)));
    TrainerOptions trainer_options;
    trainer_options.schedule = {schedule_from_name(options.scheduler),
                                warmup_step_count(steps, options.warmup_steps, options.warmup_ratio), steps};
    trainer_options.max_grad_norm = options.max_grad_norm;
    trainer_options.seed = options.loader.seed;
    AdamW<float> optimizer(parameter_groups(model, options), options.adamw);
    Trainer<float, Cpu, examples::Model> trainer(model, loader, optimizer, trainer_options);

    { AtomicDirectory trial(options.output); } // what cannot be written should be known before training
    MetricsLog log(options.log_file);
    Progress progress(steps, options.logging_steps);
    const InterruptGuard interrupt;
    const auto run_evaluation = [&] {
        const double loss = evaluate<Cpu>(model, *eval_data, options.eval_batch_size);
        progress.finish();
        examples::say(stdout, "step {}  eval_loss {:.4f}  perplexity {:.3f}\n", trainer.steps(), loss, std::exp(loss));
        log.add(evaluation_line(trainer.steps(), loss));
    };
    try {
        while (trainer.steps() < steps && !interrupt.requested()) {
            const StepMetrics metrics = trainer.step();
            progress.show(metrics);
            if (metrics.step % options.logging_steps == 0 || metrics.step == 1 || metrics.step == steps) {
                log.add(metrics_line(metrics));
            }
            if (options.eval_steps > 0 && metrics.step % options.eval_steps == 0 && metrics.step != steps) {
                run_evaluation();
            }
        }
    } catch (const NumericError&) {
        examples::require_finite_weights(model); // a tensor that is at fault says more
        throw;
    }
    progress.finish();
    if (trainer.steps() == 0) {
        examples::say(stdout, "interrupted before the first step, nothing saved\n");
        return 130;
    }
    if (eval_data) {
        run_evaluation();
    }

    AtomicDirectory output(options.output);
    if (options.trains_all_weights()) {
        for (const auto& tensor : trainable_tensors<float, Cpu>(model)) {
            require_finite(tensor.name, tensor.values);
        }
        save_gpt2(model, output.path());
    } else {
        save_adapter<float, Cpu>(model, config, output.path());
    }
    examples::copy_tokenizer(options.model.model, output.path());
    write_atomically(output.path() / "metrics.jsonl", log.lines());
    std::vector<std::string> left_out = options_without_effect(options);
    left_out.push_back("--overwrite-output-dir"); // leave for one run is not leave for the next
    if (!options.init_adapter.empty() && app.count("--lora-dropout") == 0) {
        left_out.push_back("--lora-dropout"); // the adapter's own
    }
    write_atomically(output.path() / "finetune.toml", examples::ConfigFile(app).write(left_out));
    output.commit();
    examples::say(stdout, "{} after {} of {} steps{}: {}\n", interrupt.requested() ? "interrupted, saved" : "saved",
                  trainer.steps(), steps,
                  trainer.skipped_steps() > 0 ? fmt::format(" ({} skipped)", trainer.skipped_steps()) : "",
                  options.output);
    if (!log.complete()) {
        throw FileError("--log-file: not everything could be written to '" + options.log_file + "'");
    }
    return interrupt.requested() ? 130 : 0;
}

void add_options(CLI::App& app, Options& o) {
    using examples::number;
    constexpr std::int64_t most_rows = 1 << 30;
    examples::add_model_options(app, o.model, false);
    app.add_option("--data", o.data, "training data: .json, .jsonl or .txt")->required();
    app.add_option("--output", o.output, "directory to write: the adapter, or with --method full the model")
        ->required();
    app.add_flag("--overwrite-output-dir", o.overwrite, "replace an output directory that exists");
    app.add_option("--columns", o.columns, "columns by other names: instruction=question,output=answer");
    app.add_option("--max-seq-length", o.max_seq_length, "longest row made from text; 0: n_positions")
        ->check(number<std::int64_t>(0));
    app.add_option("--eval-data", o.eval_data, "data to evaluate on at the end");
    app.add_option("--eval-steps", o.eval_steps, "evaluate every n steps too")->check(number<std::int64_t>(0));

    app.add_option("--method", o.method, "what to train")->check(CLI::IsMember({"lora", "dora", "full"}));
    app.add_option("--init-adapter", o.init_adapter, "continue from this adapter; its config decides");
    app.add_option("--r", o.lora.r, "rank")->check(number<std::int64_t>(1, most_rank));
    app.add_option("--lora-alpha", o.lora.lora_alpha, "scale: alpha/r, or alpha/sqrt(r) with --use-rslora")
        ->check(number(std::numeric_limits<double>::lowest()));
    app.add_option("--lora-dropout", o.lora.lora_dropout, "dropout before A")->check(number(0.0, 0.999));
    app.add_flag("--use-rslora", o.lora.use_rslora, "scale by alpha/sqrt(r)");
    app.add_option("--init-lora-weights", o.init_lora_weights, "true: B = 0; false: random B")
        ->check(CLI::IsMember({"true", "gaussian", "false"}));
    app.add_option("--bias", o.bias, "biases to train")->check(CLI::IsMember({"none", "all", "lora_only"}));
    app.add_option("--target-modules", o.target_modules, "names, all-linear, or a pattern over the whole path")
        ->delimiter(',');
    app.add_option("--exclude-modules", o.exclude_modules, "modules to leave out")->delimiter(',');
    app.add_option("--modules-to-save", o.modules_to_save, "modules to train whole beside the adapters")
        ->delimiter(',');
    app.add_option("--layers-to-transform", o.layers_to_transform, "numbers of the layers to adapt")
        ->delimiter(',')
        ->check(number<std::int64_t>(0));
    app.add_option("--rank-pattern", o.rank_pattern, "other ranks: c_proj=4,h.0.attn.c_attn=16")->delimiter(',');
    app.add_option("--alpha-pattern", o.alpha_pattern, "other alphas, likewise")->delimiter(',');
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
    app.add_option("--logging-steps", o.logging_steps, "steps between lines of the log")
        ->check(number<std::int64_t>(1));
    app.add_option("--log-file", o.log_file, "write metrics.jsonl here while training, too");
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
