// The evaluation itself, for the translation units that define it for a type of activations.
#pragma once

#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <fmt/ranges.h>

#include "lowrank/io/tensor_source.hpp"
#include "lowrank/train/bleu.hpp"
#include "lowrank/train/evaluate.hpp"
#include "options.hpp"
#include "samples.hpp"
#include "say.hpp"

namespace examples {

using namespace lowrank;

/// Writes the logits of each list of ids in a JSON file as tensors logits.0, logits.1, … [length, vocabulary].
template <class T>
void write_logits(const Gpt2<T>& model, const std::string& tokens, const std::string& path) {
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
    say(stdout, "logits of {} lists of tokens written to {}\n", tensors.size(), path);
}

/// BLEU of the model's own answers. Rows with the same prompt are one question with several references.
template <class T>
BleuScore answer_bleu(const Gpt2<T>& model, const DataReader& reader, const Dataset& data, std::int64_t most_tokens) {
    std::map<std::vector<std::int32_t>, std::size_t> questions;
    std::vector<std::string> answers;
    std::vector<std::vector<std::string>> references;
    for (const Example& row : data.examples) {
        const Sample sample(reader, row);
        const std::vector<std::int32_t> prompt(sample.prompt_ids().begin(), sample.prompt_ids().end());
        const auto [question, fresh] = questions.emplace(prompt, answers.size());
        if (fresh) {
            answers.push_back(continuation(model, sample, most_tokens));
            references.emplace_back();
        }
        references[question->second].push_back(sample.answer());
    }
    return corpus_bleu(answers, references);
}

template <class T>
int evaluate(const EvaluateOptions& options) {
    if (options.data.empty() == options.tokens.empty() || options.tokens.empty() != options.logits.empty()) {
        throw OptionError("--data, --tokens, --logits: give either --data FILE, or --tokens FILE with --logits FILE");
    }
    Gpt2<T> model = load_model<T>(options.model);
    if (options.bleu && options.data.empty()) {
        throw OptionError("--bleu needs --data");
    }
    if (!options.tokens.empty()) {
        write_logits(model, options.tokens, options.logits);
        return 0;
    }
    DataReader reader(options.choices, options.model, options.model.adapter, model.config);
    const Dataset data = reader.read(options.data);
    reader.check_template();
    const double loss = lowrank::evaluate<Cpu>(model, data, options.batch_size);
    if (!std::isfinite(loss)) {
        require_finite_weights(model);
        throw NumericError(concat(options.data, ": the loss is not finite: ", loss));
    }
    say(stdout, "rows {}  loss {:.6f}  perplexity {:.4f}\n", data.size(), loss, std::exp(loss));
    if (options.bleu) {
        const BleuScore bleu = answer_bleu(model, reader, data, options.max_new_tokens);
        say(stdout, "BLEU {:.4f}  precisions {:.2f}  brevity penalty {:.4f}  tokens {} of {}\n", bleu.score,
            fmt::join(bleu.precisions, "/"), bleu.brevity_penalty, bleu.hypothesis_length, bleu.reference_length);
    }
    return 0;
}

} // namespace examples
