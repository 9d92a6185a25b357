// evaluate: loss and perplexity of a model, with or without an adapter, on a data file; or the logits of given tokens.

#include <fmt/core.h>

#include "evaluate/options.hpp"
#include "number.hpp"
#include "program.hpp"

int main(int argc, char** argv) {
    examples::Program app("Evaluates a GPT-2, with or without a LoRA adapter.");
    examples::EvaluateOptions options;
    examples::add_model_options(app, options.model, true);
    examples::add_dtype_option(app, options.model);
    examples::add_quantization_options(app, options.model);
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
    return app.run(argc, argv, [&] {
        return examples::with_dtype(options.model,
                                    [&]<class T>(std::type_identity<T>) { return examples::evaluate<T>(options); });
    });
}
