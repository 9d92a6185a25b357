// finetune: trains a LoRA, rsLoRA or DoRA adapter, or all weights, of a GPT-2 on a data file.

#include <map>
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

enum class Method { lora, dora, full };

struct Options {
    examples::ModelOptions model;
    std::string data, output, eval_data, init_adapter, columns, log_file, base_dropout = "config";
    bool overwrite = false;
    Method method = Method::lora;
    LoraConfig lora;
    std::vector<std::string> target_modules, exclude_modules;
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
};

/// "name=value" entries of a pattern option.
template <class Value, class Read>
std::vector<std::pair<std::string, Value>> parse_pattern(const std::string& option,
                                                         const std::vector<std::string>& entries, const Read& read) {
    std::vector<std::pair<std::string, Value>> pattern;
    for (const std::string& entry : entries) {
        const std::size_t equals = entry.rfind('=');
        std::size_t end = 0;
        try {
            pattern.emplace_back(entry.substr(0, equals), read(entry.substr(equals + 1), &end));
        } catch (const std::exception&) {
            end = std::string::npos;
        }
        if (equals == std::string::npos || equals == 0 || end != entry.size() - equals - 1) {
            throw OptionError(option + ": found '" + entry + "', expected module=number");
        }
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

LoraConfig lora_config(const Options& options) {
    LoraConfig config = options.lora;
    config.use_dora = options.method == Method::dora;
    config.target_modules = selection(options.target_modules);
    config.exclude_modules = selection(options.exclude_modules);
    if (!options.layers_to_transform.empty()) {
        config.layers_to_transform = options.layers_to_transform;
    }
    config.rank_pattern =
        parse_pattern<std::int64_t>("--rank-pattern", options.rank_pattern,
                                    [](const std::string& s, std::size_t* end) { return std::stoll(s, end); });
    config.alpha_pattern =
        parse_pattern<double>("--alpha-pattern", options.alpha_pattern,
                              [](const std::string& s, std::size_t* end) { return std::stod(s, end); });
    config.base_model_name_or_path = options.model.model;
    return config;
}

/// Makes the model ready for training and returns the adapter's settings.
LoraConfig prepare(examples::Model& model, const Options& options, const CLI::App& app) {
    LoraConfig config = lora_config(options);
    if (options.method == Method::full) {
        for_each_parameter(model, [](const std::string&, auto& field) { set_trainable(field, true); });
    } else if (options.init_adapter.empty()) {
        attach_lora<float, Cpu>(model, config, options.loader.seed);
    } else {
        config = load_adapter<float, Cpu>(model, options.init_adapter, [&](LoraConfig& loaded) {
            loaded.base_model_name_or_path = options.model.model;
            if (app.count("--lora-dropout") > 0) {
                loaded.lora_dropout = options.lora.lora_dropout;
            }
        });
    }
    return config;
}

/// Options that the adapter's own file decides.
void refuse_contradictions(const Options& options, const CLI::App& app) {
    if (!options.init_adapter.empty()) {
        for (const char* name :
             {"--method", "--r", "--lora-alpha", "--use-rslora", "--bias", "--target-modules", "--exclude-modules",
              "--layers-to-transform", "--rank-pattern", "--alpha-pattern", "--init-lora-weights"}) {
            if (app.count(name) > 0) {
                throw OptionError(std::string(name) +
                                  ": the adapter of --init-adapter decides this; leave the option out");
            }
        }
    }
    if (options.base_dropout != "config" && options.base_dropout != "none") {
        throw OptionError("--base-dropout: found '" + options.base_dropout + "', expected config or none");
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
        fmt::print(stderr, "{}: {} rows from {} records", path, data.size(), counts.records);
        if (counts.truncated + counts.dropped > 0) {
            fmt::print(stderr, ", {} truncated at {} tokens, {} dropped, {} tokens lost", counts.truncated,
                       options_.max_seq_length, counts.dropped, counts.cut_tokens);
        }
        fmt::print(stderr, "\n");
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

  private:
    std::ofstream file_;
    std::string lines_;
};

int finetune(Options& options, const CLI::App& app) {
    refuse_contradictions(options, app);
    examples::check_output(options.output, options.overwrite);
    examples::Model model = examples::load_model(options.model);
    DataReader reader(options, model.config);
    const Dataset data = reader.read(options.data);
    const std::optional<Dataset> eval_data =
        options.eval_data.empty() ? std::nullopt : std::optional(reader.read(options.eval_data));
    fmt::print(stderr, "{}", reader.describe(data));

    const LoraConfig config = prepare(model, options, app);
    if (options.base_dropout == "none") {
        model.set_base_dropout(0, 0, 0);
    }
    model.gradient_checkpointing = options.gradient_checkpointing;
    fmt::print("{}\n", describe(count_parameters<float, Cpu>(model)));

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

    MetricsLog log(options.log_file);
    Progress progress(steps, options.logging_steps);
    const InterruptGuard interrupt;
    const auto run_evaluation = [&] {
        const double loss = evaluate<Cpu>(model, *eval_data, options.eval_batch_size);
        progress.finish();
        fmt::print("step {}  eval_loss {:.4f}  perplexity {:.3f}\n", trainer.steps(), loss, std::exp(loss));
        log.add(evaluation_line(trainer.steps(), loss));
    };
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
    progress.finish();
    if (eval_data && trainer.steps() > 0) {
        run_evaluation();
    }

    AtomicDirectory output(options.output);
    if (options.method == Method::full) {
        save_gpt2(model, output.path());
    } else {
        save_adapter<float, Cpu>(model, config, output.path());
    }
    examples::copy_tokenizer(options.model.model, output.path());
    write_atomically(output.path() / "metrics.jsonl", log.lines());
    write_atomically(output.path() / "finetune.toml", app.config_to_str(true, false));
    output.commit();
    fmt::print("{} after {} of {} steps: {}\n", interrupt.requested() ? "interrupted, saved" : "saved", trainer.steps(),
               steps, options.output);
    return interrupt.requested() ? 130 : 0;
}

void add_options(CLI::App& app, Options& o) {
    const std::map<std::string, Method> methods{{"lora", Method::lora}, {"dora", Method::dora}, {"full", Method::full}};
    const std::map<std::string, BiasMode> biases{
        {"none", BiasMode::none}, {"all", BiasMode::all}, {"lora_only", BiasMode::lora_only}};
    const std::map<std::string, LoraInit> inits{
        {"true", LoraInit::kaiming}, {"gaussian", LoraInit::gaussian}, {"false", LoraInit::random}};
    examples::add_model_options(app, o.model, false);
    app.add_option("--data", o.data, "training data: .json, .jsonl or .txt")->required();
    app.add_option("--output", o.output, "directory to write: the adapter, or with --method full the model")
        ->required();
    app.add_flag("--overwrite-output-dir", o.overwrite, "replace an output directory that exists");
    app.add_option("--columns", o.columns, "columns by other names: instruction=question,output=answer");
    app.add_option("--max-seq-length", o.max_seq_length, "longest row made from text; 0: n_positions")
        ->check(CLI::NonNegativeNumber);
    app.add_option("--eval-data", o.eval_data, "data to evaluate on at the end");
    app.add_option("--eval-steps", o.eval_steps, "evaluate every n steps too")->check(CLI::NonNegativeNumber);

    app.add_option("--method", o.method, "lora, dora or full")->transform(CLI::CheckedTransformer(methods));
    app.add_option("--init-adapter", o.init_adapter, "continue from this adapter; its config decides");
    app.add_option("--r", o.lora.r, "rank")->check(CLI::PositiveNumber);
    app.add_option("--lora-alpha", o.lora.lora_alpha, "scale: alpha/r, or alpha/sqrt(r) with --use-rslora");
    app.add_option("--lora-dropout", o.lora.lora_dropout, "dropout before A");
    app.add_flag("--use-rslora", o.lora.use_rslora, "scale by alpha/sqrt(r)");
    app.add_option("--init-lora-weights", o.lora.init_lora_weights, "true (B = 0), gaussian or false (random B)")
        ->transform(CLI::CheckedTransformer(inits));
    app.add_option("--bias", o.lora.bias, "biases to train: none, all or lora_only")
        ->transform(CLI::CheckedTransformer(biases));
    app.add_option("--target-modules", o.target_modules, "names, all-linear, or a pattern over the whole path")
        ->delimiter(',');
    app.add_option("--exclude-modules", o.exclude_modules, "modules to leave out")->delimiter(',');
    app.add_option("--layers-to-transform", o.layers_to_transform, "numbers of the layers to adapt")->delimiter(',');
    app.add_option("--rank-pattern", o.rank_pattern, "other ranks: c_proj=4,h.0.attn.c_attn=16")->delimiter(',');
    app.add_option("--alpha-pattern", o.alpha_pattern, "other alphas, likewise")->delimiter(',');
    app.add_option("--base-dropout", o.base_dropout, "dropout of the base model: config (as config.json says) or none");

    app.add_option("--learning-rate", o.adamw.learning_rate, "highest learning rate");
    app.add_option("--loraplus-lr-ratio", o.loraplus_lr_ratio, "LoRA+: B learns this many times faster; 0: off")
        ->check(CLI::NonNegativeNumber);
    app.add_option("--lr-scheduler-type", o.scheduler, "constant, constant_with_warmup, linear or cosine");
    app.add_option("--warmup-ratio", o.warmup_ratio, "part of the steps that warms up");
    app.add_option("--warmup-steps", o.warmup_steps, "steps that warm up");
    app.add_option("--num-train-epochs", o.num_train_epochs, "epochs")->check(CLI::PositiveNumber);
    app.add_option("--max-steps", o.max_steps, "steps, instead of epochs; 0: epochs count")
        ->check(CLI::NonNegativeNumber);
    app.add_option("--per-device-train-batch-size", o.loader.batch_size, "rows of a micro-batch")
        ->check(CLI::PositiveNumber);
    app.add_option("--per-device-eval-batch-size", o.eval_batch_size, "rows of a batch in evaluation")
        ->check(CLI::PositiveNumber);
    app.add_option("--gradient-accumulation-steps", o.loader.accumulation_steps, "micro-batches of a step")
        ->check(CLI::PositiveNumber);
    app.add_option("--adam-beta1", o.adamw.beta1, "AdamW's first beta");
    app.add_option("--adam-beta2", o.adamw.beta2, "AdamW's second beta");
    app.add_option("--adam-epsilon", o.adamw.epsilon, "AdamW's epsilon");
    app.add_option("--weight-decay", o.adamw.weight_decay, "decoupled weight decay of every trained tensor");
    app.add_option("--max-grad-norm", o.max_grad_norm, "clip gradients to this norm; 0: do not");
    app.add_flag("--gradient-checkpointing", o.gradient_checkpointing, "less memory for more time");
    app.add_option("--logging-steps", o.logging_steps, "steps between lines of the log")->check(CLI::PositiveNumber);
    app.add_option("--log-file", o.log_file, "write metrics.jsonl here while training, too");
    app.add_option("--seed", o.loader.seed, "seed of initial factors, shuffling and dropout");
    app.add_flag("--no-shuffle", o.no_shuffle, "take the rows in the order of the file");
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app("Fine-tunes a GPT-2: a LoRA, rsLoRA or DoRA adapter that PEFT opens, or all weights.");
    Options options;
    add_options(app, options);
    return examples::run(app, argc, argv, [&] { return finetune(options, app); });
}
