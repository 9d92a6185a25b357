// pretrain: trains a new GPT-2 on text files, with a tokenizer of its own, and writes a directory as Transformers does.

#include <algorithm>
#include <cmath>

#include "config_file.hpp"
#include "lowrank/adapters/attach.hpp"
#include "lowrank/data/tokenize.hpp"
#include "lowrank/io/atomic_directory.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"
#include "lowrank/models/gpt2_init.hpp"
#include "lowrank/text/write_tokenizer.hpp"
#include "lowrank/train/history.hpp"
#include "lowrank/train/progress.hpp"
#include "lowrank/train/stop_on_interrupt.hpp"
#include "lowrank/train/trainer.hpp"
#include "model.hpp"
#include "number.hpp"
#include "output.hpp"
#include "program.hpp"
#include "say.hpp"

using namespace lowrank;

namespace {

constexpr std::string_view end_of_text = "<|endoftext|>"; // separates the documents of a file

struct Options {
    std::vector<std::string> data;
    std::string output, eval_data;
    bool overwrite = false;
    int threads = 0;
    BpeTrainerOptions tokenizer{1024, 2, {std::string(end_of_text)}};
    Gpt2Config model;
    double dropout = 0;
    AdamWOptions adamw{.learning_rate = 1e-3, .beta2 = 0.99, .weight_decay = 0.1};
    double max_grad_norm = 1, warmup_ratio = 0.05, num_train_epochs = 1;
    std::string scheduler = "cosine", position_init = "normal";
    std::int64_t warmup_steps = 0, max_steps = 0, logging_steps = 50;
    LoaderOptions loader{.batch_size = 16};
};

/// A text, and the number of the file that it is from.
struct Document {
    std::string text;
    std::size_t file;
};

/// The documents of the files, one after the other.
std::vector<Document> read_documents(const std::vector<std::string>& paths) {
    std::vector<Document> documents;
    for (std::size_t file = 0; file < paths.size(); ++file) {
        const std::string& path = paths[file];
        const std::string text = read_text(path);
        if (const auto offset = validate_utf8(text)) {
            throw FileError(concat(path, ": found bytes at ", *offset, " that are not UTF-8"));
        }
        for (std::size_t begin = 0; begin < text.size();) {
            const std::size_t end = std::min(text.find(end_of_text, begin), text.size());
            if (end > begin) {
                documents.push_back({text.substr(begin, end - begin), file});
            }
            begin = end + end_of_text.size();
        }
    }
    if (documents.empty()) {
        throw FileError(paths.front() + ": found no text");
    }
    return documents;
}

BpeVocabulary train_tokenizer(const std::vector<Document>& documents, const BpeTrainerOptions& options) {
    BpeTrainer trainer(options);
    for (const Document& document : documents) {
        trainer.add(document.text);
    }
    return trainer.train();
}

/// Each document is a row, or several where it is longer than the model takes.
Dataset read_rows(const std::vector<Document>& documents, const std::vector<std::string>& paths,
                  const Tokenizer& tokenizer, std::int64_t n_positions) {
    Dataset data;
    data.files = paths;
    for (const Document& document : documents) {
        const Segment segment{document.text, true, true};
        const Example whole = encode_segments(tokenizer, std::span(&segment, 1));
        ++data.counts.records;
        for (Example& row : cut_into_blocks(whole, static_cast<std::size_t>(n_positions))) {
            if (supervised_tokens(row) > 0) {
                data.examples.push_back(std::move(row));
                data.origins.push_back({document.file, 0, data.counts.records});
            }
        }
    }
    return data;
}

/// All parameters; only matrices decay.
std::vector<ParameterGroup<float>> parameter_groups(examples::Model& model) {
    std::vector<ParameterGroup<float>> groups(2);
    groups[1].weight_decay = 0;
    for (const auto& tensor : trainable_tensors<float, Cpu>(model)) {
        ParameterGroup<float>& group = groups[tensor.values.rank() == 2 ? 0 : 1];
        group.parameters.push_back(tensor.values);
        group.names.push_back(tensor.name);
    }
    return groups;
}

int pretrain(Options& options, const examples::Program& app) {
    std::vector<std::pair<std::string, std::string>> used = {{"--eval-data", options.eval_data}};
    for (const std::string& path : options.data) {
        used.emplace_back("--data", path);
    }
    examples::check_output(options.output, options.overwrite, used);
    if (options.threads > 0) {
        set_num_threads(options.threads);
    }
    const std::vector<Document> documents = read_documents(options.data);
    const BpeVocabulary vocabulary = train_tokenizer(documents, options.tokenizer);
    const Tokenizer tokenizer = vocabulary.tokenizer();
    options.model.vocab_size = tokenizer.vocab_size();
    options.model.eos_token_id = tokenizer.eos_id();
    options.model.n_inner = 4 * options.model.n_embd;
    options.model.embd_pdrop = options.model.attn_pdrop = options.model.resid_pdrop = options.dropout;
    const Dataset data = read_rows(documents, options.data, tokenizer, options.model.n_positions);
    const std::optional<Dataset> eval_data =
        options.eval_data.empty() ? std::nullopt
                                  : std::optional(read_rows(read_documents({options.eval_data}), {options.eval_data},
                                                            tokenizer, options.model.n_positions));

    examples::Model model =
        new_gpt2<float>(options.model, options.loader.seed,
                        options.position_init == "normal" ? PositionInit::normal : PositionInit::sinusoidal);
    DataLoader loader(data, options.loader);
    const std::int64_t steps =
        options.max_steps > 0 ? options.max_steps : steps_for_epochs(loader, options.num_train_epochs);
    examples::say(stdout, "{} documents in {} rows, {} tokens in the vocabulary, {} parameters, {} steps\n",
                  documents.size(), data.size(), tokenizer.vocab_size(), count_parameters<float, Cpu>(model).all,
                  steps);
    AdamW<float> optimizer(parameter_groups(model), options.adamw);
    TrainerOptions trainer_options;
    trainer_options.schedule = {schedule_from_name(options.scheduler),
                                warmup_step_count(steps, options.warmup_steps, options.warmup_ratio), steps};
    trainer_options.max_steps = steps;
    trainer_options.max_grad_norm = options.max_grad_norm;
    trainer_options.seed = options.loader.seed;
    Trainer<float, Cpu, examples::Model> trainer(model, loader, optimizer, trainer_options);

    { AtomicDirectory trial(options.output); } // what cannot be written should be known before training
    Progress progress(steps, options.logging_steps);
    MetricsHistory history(options.logging_steps);
    StopOnInterrupt interrupt;
    trainer.train({&progress, &history, &interrupt});
    if (eval_data) {
        const double loss = evaluate<Cpu>(model, *eval_data, options.loader.batch_size);
        examples::say(stdout, "eval_loss {:.4f}  perplexity {:.3f}\n", loss, std::exp(loss));
        TrainerState state = trainer.state();
        history.on_evaluate({state.step, state.epoch, loss}, state);
    }

    AtomicDirectory output(options.output);
    save_gpt2(model, output.path());
    write_tokenizer(vocabulary, options.model.n_positions, output.path());
    write_atomically(output.path() / MetricsHistory::file_name, history.lines());
    write_atomically(output.path() / "pretrain.toml",
                     examples::config_text(examples::ConfigFile(app).in_effect({"--overwrite-output-dir"})));
    output.commit();
    examples::say(stdout, "{} after {} of {} steps: {}\n", interrupt.interrupted() ? "interrupted, saved" : "saved",
                  trainer.steps(), steps, options.output);
    return interrupt.interrupted() ? 130 : 0;
}

void add_options(CLI::App& app, Options& o) {
    using examples::number;
    constexpr std::int64_t most = 1 << 20;
    app.add_option("--data", o.data, "text files; <|endoftext|> separates the documents of one")
        ->required()
        ->delimiter(',');
    app.add_option("--output", o.output, "directory to write: model and tokenizer")->required();
    app.add_flag("--overwrite-output-dir", o.overwrite, "replace an output directory that exists");
    app.add_option("--eval-data", o.eval_data, "text file to evaluate on at the end");
    app.add_option("--threads", o.threads, "threads; 0 takes all CPUs")->check(number<int>(0, 1024));

    app.add_option("--vocab-size", o.tokenizer.vocab_size, "tokens of the vocabulary, at most")
        ->check(number<std::int64_t>(257, most - 2));
    app.add_option("--n-layer", o.model.n_layer, "layers")->check(number<std::int64_t>(1, 4096));
    app.add_option("--n-embd", o.model.n_embd, "width")->check(number<std::int64_t>(1, most));
    app.add_option("--n-head", o.model.n_head, "attention heads; divides the width")
        ->check(number<std::int64_t>(1, most));
    app.add_option("--n-positions", o.model.n_positions, "tokens of a row, and the most that the model takes")
        ->check(number<std::int64_t>(2, most));
    app.add_option("--position-init", o.position_init, "how position embeddings start: as GPT-2's, or as waves")
        ->check(CLI::IsMember({"normal", "sinusoidal"}));
    app.add_option("--dropout", o.dropout, "dropout of embeddings, attention and residuals")->check(number(0.0, 0.999));

    app.add_option("--learning-rate", o.adamw.learning_rate, "highest learning rate")->check(number(0.0));
    app.add_option("--lr-scheduler-type", o.scheduler, "shape of the schedule")
        ->check(CLI::IsMember({"constant", "constant_with_warmup", "linear", "cosine"}));
    app.add_option("--warmup-ratio", o.warmup_ratio, "share of the steps to warm up")->check(number(0.0, 1.0));
    app.add_option("--warmup-steps", o.warmup_steps, "steps to warm up, instead of the ratio")
        ->check(number<std::int64_t>(0));
    app.add_option("--num-train-epochs", o.num_train_epochs, "passes over the data")->check(number(0.0, 1e6));
    app.add_option("--max-steps", o.max_steps, "steps, instead of epochs; 0: epochs decide")
        ->check(number<std::int64_t>(0));
    app.add_option("--per-device-train-batch-size", o.loader.batch_size, "rows of a batch")
        ->check(number<std::int64_t>(1, most));
    app.add_option("--gradient-accumulation-steps", o.loader.accumulation_steps, "batches of a step")
        ->check(number<std::int64_t>(1, most));
    app.add_option("--adam-beta1", o.adamw.beta1, "AdamW's beta1")->check(number(0.0, 0.999999));
    app.add_option("--adam-beta2", o.adamw.beta2, "AdamW's beta2")->check(number(0.0, 0.999999));
    app.add_option("--adam-epsilon", o.adamw.epsilon, "AdamW's epsilon")->check(number(0.0));
    app.add_option("--weight-decay", o.adamw.weight_decay, "decay of matrices")->check(number(0.0));
    app.add_option("--max-grad-norm", o.max_grad_norm, "gradients are scaled down to this norm; 0: never")
        ->check(number(0.0));
    app.add_option("--logging-steps", o.logging_steps, "log every n steps")->check(number<std::int64_t>(1));
    app.add_option("--seed", o.loader.seed, "seed of weights, order and dropout")->check(number<std::uint64_t>(0));
}

} // namespace

int main(int argc, char** argv) {
    examples::Program app("Trains a GPT-2 from scratch on text, with a tokenizer of its own.");
    Options options;
    options.model.n_layer = 4;
    options.model.n_embd = 128;
    options.model.n_head = 4;
    options.model.n_positions = 256;
    add_options(app, options);
    return app.run(argc, argv, [&] { return pretrain(options, app); });
}
