// evaluate: loss and perplexity of a model, with or without an adapter, on a data file; or the logits of given tokens.

#include <cmath>
#include <map>

#include <fmt/ranges.h>

#include "data_options.hpp"
#include "lowrank/io/tensor_source.hpp"
#include "lowrank/train/bleu.hpp"
#include "lowrank/train/evaluate.hpp"
#include "model.hpp"
#include "number.hpp"
#include "program.hpp"
#include "samples.hpp"
#include "say.hpp"

using namespace lowrank;

namespace {

struct Options {
    examples::ModelOptions model;
    std::string data, tokens, logits;
    examples::DataChoices choices;
    std::int64_t batch_size = 8, max_new_tokens = 64;
    bool bleu = false;
};

/// Writes the logits of each list of ids in a JSON file as tensors logits.0, logits.1, … [length, vocabulary].
void write_logits(const examples::Model& model, const std::string& tokens, const std::string& path) {
    const json lists = read_json(tokens);
    const auto refuse = [&](const std::string& found) {
        throw FileError(concat(tokens, ": found ", found, ", expected a list of lists of token ids: 1 to ",
                               model.config.n_positions, " numbers from 0 to ", model.config.vocab_size - 1));
    };
    if (!lists.is_array()) {
        refuse(JsonReader::describe(lists));
    }
    const NoGrad no_grad;
    std::vector<TensorSource> tensors;
    for (std::size_t i = 0; i < lists.size(); ++i) {
        if (!lists[i].is_array()) {
            refuse(concat(JsonReader::describe(lists[i]), " as list ", i));
        }
        std::vector<std::int32_t> ids;
        for (const json& id : lists[i]) {
            if (!id.is_number_integer() || id < 0 || id >= model.config.vocab_size) {
                refuse(concat(JsonReader::describe(id), " in list ", i));
            }
            ids.push_back(id.get<std::int32_t>());
        }
        if (ids.empty() || ids.size() > static_cast<std::uint64_t>(model.config.n_positions)) {
            refuse(concat(ids.size(), " ids in list ", i));
        }
        const auto length = static_cast<std::int64_t>(ids.size());
        const auto logits = model.logits(model.hidden(Tensor<std::int32_t>::from(ids, {1, length})));
        tensors.push_back(
            tensor_source("logits." + std::to_string(i), reshape(logits, {length, model.config.vocab_size})));
    }
    write_safetensors(path, tensors, {{"format", "pt"}});
    examples::say(stdout, "logits of {} lists of tokens written to {}\n", tensors.size(), path);
}

/// BLEU of the model's own answers. Rows with the same prompt are one question with several references.
BleuScore answer_bleu(const examples::Model& model, const examples::DataReader& reader, const Dataset& data,
                      std::int64_t most_tokens) {
    std::map<std::vector<std::int32_t>, std::size_t> questions;
    std::vector<std::string> answers;
    std::vector<std::vector<std::string>> references;
    for (const Example& row : data.examples) {
        const examples::Sample sample(reader, row);
        const std::vector<std::int32_t> prompt(sample.prompt_ids().begin(), sample.prompt_ids().end());
        const auto [question, fresh] = questions.emplace(prompt, answers.size());
        if (fresh) {
            answers.push_back(sample.continuation(model, most_tokens));
            references.emplace_back();
        }
        references[question->second].push_back(sample.answer());
    }
    return corpus_bleu(answers, references);
}

int evaluate_program(const Options& options) {
    if (options.data.empty() == options.tokens.empty() || options.tokens.empty() != options.logits.empty()) {
        throw OptionError("--data, --tokens, --logits: give either --data FILE, or --tokens FILE with --logits FILE");
    }
    examples::Model model = examples::load_model(options.model);
    if (options.bleu && options.data.empty()) {
        throw OptionError("--bleu needs --data");
    }
    if (!options.tokens.empty()) {
        write_logits(model, options.tokens, options.logits);
        return 0;
    }
    examples::DataReader reader(options.choices, options.model, options.model.adapter, model.config);
    const Dataset data = reader.read(options.data);
    reader.check_template();
    const double loss = evaluate<Cpu>(model, data, options.batch_size);
    if (!std::isfinite(loss)) {
        examples::require_finite_weights(model);
        throw NumericError(concat(options.data, ": the loss is not finite: ", loss));
    }
    examples::say(stdout, "rows {}  loss {:.6f}  perplexity {:.4f}\n", data.size(), loss, std::exp(loss));
    if (options.bleu) {
        const BleuScore bleu = answer_bleu(model, reader, data, options.max_new_tokens);
        examples::say(stdout, "BLEU {:.4f}  precisions {:.2f}  brevity penalty {:.4f}  tokens {} of {}\n", bleu.score,
                      fmt::join(bleu.precisions, "/"), bleu.brevity_penalty, bleu.hypothesis_length,
                      bleu.reference_length);
    }
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    examples::Program app("Evaluates a GPT-2, with or without a LoRA adapter.");
    Options options;
    examples::add_model_options(app, options.model, true);
    app.add_option("--data", options.data,
                   fmt::format("data file, {}: prints loss and perplexity", examples::data_help));
    examples::add_data_options(app, options.choices);
    app.add_option("--tokens", options.tokens, "JSON file with a list of lists of token ids");
    app.add_option("--logits", options.logits, "safetensors file to write for --tokens: logits.0, logits.1, …");
    app.add_option("--per-device-eval-batch-size", options.batch_size, "rows of a batch")
        ->check(examples::number<std::int64_t>(1, 1 << 30));
    app.add_flag("--bleu", options.bleu, "answer the prompts of --data, and print sacreBLEU's score of the answers");
    app.add_option("--max-new-tokens", options.max_new_tokens, "longest answer for --bleu, in tokens")
        ->check(examples::number<std::int64_t>(1));
    return app.run(argc, argv, [&] { return evaluate_program(options); });
}
