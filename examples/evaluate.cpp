// evaluate: loss and perplexity of a model, with or without an adapter, on a data file; or the logits of given tokens.

#include <cmath>
#include <memory>

#include "common.hpp"
#include "lowrank/data/load.hpp"
#include "lowrank/io/tensor_source.hpp"
#include "lowrank/text/load_tokenizer.hpp"
#include "lowrank/train/trainer.hpp"

using namespace lowrank;

namespace {

struct Options {
    examples::ModelOptions model;
    std::string data, tokens, logits;
    std::int64_t batch_size = 8, max_seq_length = 0;
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

int evaluate_program(const Options& options) {
    if (options.data.empty() == options.tokens.empty() || options.tokens.empty() != options.logits.empty()) {
        throw OptionError("--data, --tokens, --logits: give either --data FILE, or --tokens FILE with --logits FILE");
    }
    examples::Model model = examples::load_model(options.model);
    if (!options.tokens.empty()) {
        write_logits(model, options.tokens, options.logits);
        return 0;
    }
    DataOptions data_options;
    data_options.n_positions = model.config.n_positions;
    data_options.max_seq_length = options.max_seq_length ? options.max_seq_length : model.config.n_positions;
    data_options.vocab_size = static_cast<std::int32_t>(model.config.vocab_size);
    std::unique_ptr<Tokenizer> tokenizer; // loaded for text only
    const Dataset data = load_dataset(options.data, data_options, [&](std::span<const Segment> segments) {
        if (!tokenizer) {
            tokenizer = std::make_unique<Tokenizer>(Tokenizer::load(options.model.model));
        }
        return encode_segments(*tokenizer, segments);
    });
    const double loss = evaluate<Cpu>(model, data, options.batch_size);
    if (!std::isfinite(loss)) {
        examples::require_finite_weights(model);
        throw NumericError(concat(options.data, ": the loss is not finite: ", loss));
    }
    examples::say(stdout, "rows {}  loss {:.6f}  perplexity {:.4f}\n", data.size(), loss, std::exp(loss));
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    examples::Program app("Evaluates a GPT-2, with or without a LoRA adapter.");
    Options options;
    examples::add_model_options(app, options.model, true);
    app.add_option("--data", options.data, "data file (.json, .jsonl, .txt): prints loss and perplexity");
    app.add_option("--tokens", options.tokens, "JSON file with a list of lists of token ids");
    app.add_option("--logits", options.logits, "safetensors file to write for --tokens: logits.0, logits.1, …");
    app.add_option("--per-device-eval-batch-size", options.batch_size, "rows of a batch")
        ->check(examples::number<std::int64_t>(1, 1 << 30));
    app.add_option("--max-seq-length", options.max_seq_length, "longest row made from text; 0: n_positions")
        ->check(examples::number<std::int64_t>(0));
    return app.run(argc, argv, [&] { return evaluate_program(options); });
}
