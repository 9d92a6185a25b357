#include "model.hpp"

#include "number.hpp"

namespace examples {

void add_model_options(CLI::App& app, ModelOptions& options, bool with_adapter) {
    app.add_option("--model", options.model,
                   "directory of a GPT-2 as Transformers saves it: config.json, model.safetensors, tokenizer files")
        ->required();
    if (with_adapter) {
        app.add_option("--adapter", options.adapter, "directory of a LoRA adapter as PEFT saves it");
    }
    app.add_option("--threads", options.threads, "threads; 0 takes all CPUs")->check(number<int>(0, 1024));
}

void add_dtype_option(CLI::App& app, ModelOptions& options) {
    app.add_option("--dtype", options.dtype,
                   "type of activations, and of matrices whose type in the file is wider: bf16 needs half the memory")
        ->check(CLI::IsMember({"fp32", "bf16"}));
}

void add_quantization_options(CLI::App& app, ModelOptions& options) {
    app.add_option("--quantize", options.quantize, "quantize the linear layers of the model while it is loaded")
        ->check(CLI::IsMember({"none", "nf4"}));
    app.add_flag("--bnb-4bit-use-double-quant", options.double_quantization,
                 "with --quantize nf4: quantize the scales, too, 4.13 bits a number instead of 4.5");
}

} // namespace examples
