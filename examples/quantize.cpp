// quantize: writes a GPT-2 with its linear layers in NF4, as Transformers saves it with bitsandbytes.

#include <cstddef>
#include <memory>
#include <string>

#include "lowrank/core/parallel.hpp"
#include "lowrank/io/atomic_directory.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"
#include "model.hpp"
#include "output.hpp"
#include "program.hpp"
#include "say.hpp"

using namespace lowrank;

namespace {

struct Options {
    examples::ModelOptions model;
    std::string output, dtype, compute_dtype = "float32";
    bool double_quantization = false, overwrite = false;
};

/// Stores every matrix that is not quantized as S.
template <class S>
void store_as(examples::Model& model) {
    for_each<WeightSlot<float, Cpu>>(model, [](const std::string&, WeightSlot<float, Cpu>& slot) {
        if (slot.defined() && !nf4_weight_of(slot)) {
            slot = std::make_shared<DenseWeight<S, Cpu>>(slot.frozen()->template dense_copy<S>(), slot.orientation());
        }
    });
}

int quantize_program(const Options& options) {
    examples::check_output(options.output, options.overwrite, {{"--model", options.model.model}});
    if (options.model.threads > 0) {
        set_num_threads(options.model.threads);
    }
    const bool is_bf16 = options.dtype == "bfloat16";
    LoadOptions load;
    load.nf4 = Nf4Options{.double_quantization = options.double_quantization};
    if (!options.dtype.empty()) {
        load.nf4->type = is_bf16 ? DType::bf16 : DType::f32;
    }
    examples::Model model = load_gpt2<float>(options.model.model, load);
    if (model.config.document.contains("quantization_config")) {
        throw OptionError(concat("--model: ", options.model.model, " is quantized already"));
    }
    json& config = model.config.document;
    config["quantization_config"] = {{"bnb_4bit_compute_dtype", options.compute_dtype}};
    if (!options.dtype.empty()) { // in which type Transformers loads the rest
        config[config.contains("torch_dtype") ? "torch_dtype" : "dtype"] = options.dtype;
    }
    std::size_t layers = 0, bytes = 0;
    for_each<WeightSlot<float, Cpu>>(model, [&](const std::string&, const WeightSlot<float, Cpu>& slot) {
        if (const auto nf4 = nf4_weight_of(slot)) {
            ++layers;
            bytes += nf4->bytes();
        }
    });
    AtomicDirectory output(options.output);
    if (is_bf16) {
        store_as<bf16>(model);
    } else if (!options.dtype.empty()) {
        store_as<float>(model);
    }
    save_gpt2(model, output.path(), is_bf16 ? DType::bf16 : DType::f32);
    examples::copy_text_files(options.model.model, output.path());
    output.commit();
    examples::say(stdout, "quantized {} layers to {:.1f} MB: {}\n", layers, static_cast<double>(bytes) / 1e6,
                  options.output);
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    examples::Program app(
        "Quantizes the linear layers of a GPT-2 to NF4, one by one, and writes the model as Transformers "
        "and bitsandbytes do. Embeddings, head, norms and biases stay as they are, unless --dtype says otherwise.");
    Options options;
    examples::add_model_options(app, options.model, false);
    app.add_option("--output", options.output, "directory to write: config.json, model.safetensors, tokenizer files")
        ->required();
    app.add_flag("--bnb-4bit-use-double-quant", options.double_quantization,
                 "quantize the scales, too: 4.13 bits a number instead of 4.5");
    app.add_option("--bnb-4bit-compute-dtype", options.compute_dtype,
                   "type in which Transformers shall compute with the layers")
        ->check(CLI::IsMember({"float32", "bfloat16", "float16"}));
    app.add_option("--dtype", options.dtype,
                   "type of all that is not quantized, and of the numbers that the codes stand for: what Transformers "
                   "writes that has loaded the model in this type; otherwise matrices keep theirs")
        ->check(CLI::IsMember({"float32", "bfloat16"}));
    app.add_flag("--overwrite-output-dir", options.overwrite, "replace an output directory that is not empty");
    return app.run(argc, argv, [&] { return quantize_program(options); });
}
