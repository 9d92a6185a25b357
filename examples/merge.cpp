// merge: puts an adapter into the matrices of its model and writes a model that needs no adapter.

#include <optional>
#include <string>

#include "lowrank/adapters/merge.hpp"
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
    std::string output, dtype;
    bool overwrite = false;
};

int merge_program(const Options& options) {
    examples::check_output(options.output, options.overwrite,
                           {{"--model", options.model.model}, {"--adapter", options.model.adapter}});
    examples::Model model = examples::load_model(options.model);
    std::optional<DType> storage;
    if (!options.dtype.empty()) {
        storage = options.dtype == "bf16" ? DType::bf16 : options.dtype == "fp16" ? DType::f16 : DType::f32;
        const char* name = options.dtype == "bf16" ? "bfloat16" : options.dtype == "fp16" ? "float16" : "float32";
        nlohmann::json& config = model.config.document; // in which type Transformers loads it
        config[config.contains("torch_dtype") ? "torch_dtype" : "dtype"] = name;
    }
    const MergedAdapters merged = merge<float, Cpu>(model, storage);
    AtomicDirectory output(options.output);
    save_gpt2(model, output.path());
    examples::copy_text_files(options.model.model, output.path());
    examples::copy_text_files(options.model.adapter, output.path()); // it may have added tokens, and a template
    output.commit();
    if (merged.rounding_error() > 0) {
        examples::say(stdout, "largest rounding error {:.2e}, in {}\n", merged.rounding_error(), merged.rounded_most());
    }
    examples::say(stdout, "merged {} layers: {}\n", merged.size(), options.output);
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    examples::Program app("Merges an adapter into its GPT-2 and writes the model as Transformers does.");
    Options options;
    examples::add_model_options(app, options.model, true);
    examples::add_quantization_options(app, options.model);
    app.get_option("--adapter")->required();
    app.add_option("--dtype", options.dtype,
                   "type of every matrix that is written, quantized ones too; otherwise the merged ones are fp32, and "
                   "the others stay what they are")
        ->check(CLI::IsMember({"fp32", "bf16", "fp16"}));
    app.add_option("--output", options.output, "directory to write: config.json, model.safetensors, tokenizer files")
        ->required();
    app.add_flag("--overwrite-output-dir", options.overwrite, "replace an output directory that is not empty");
    return app.run(argc, argv, [&] { return merge_program(options); });
}
