// merge: puts an adapter into the matrices of its model and writes a model that needs no adapter.

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
    std::string output;
    bool overwrite = false;
};

int merge_program(const Options& options) {
    examples::check_output(options.output, options.overwrite,
                           {{"--model", options.model.model}, {"--adapter", options.model.adapter}});
    examples::Model model = examples::load_model(options.model);
    const auto merged = merge<float, Cpu>(model);
    AtomicDirectory output(options.output);
    save_gpt2(model, output.path());
    examples::copy_text_files(options.model.model, output.path());
    examples::copy_text_files(options.model.adapter, output.path()); // it may have added tokens, and a template
    output.commit();
    examples::say(stdout, "merged {} layers: {}\n", merged.size(), options.output);
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    examples::Program app("Merges a LoRA adapter into its GPT-2 and writes the model as Transformers does.");
    Options options;
    examples::add_model_options(app, options.model, true);
    app.get_option("--adapter")->required();
    app.add_option("--output", options.output, "directory to write: config.json, model.safetensors, tokenizer files")
        ->required();
    app.add_flag("--overwrite-output-dir", options.overwrite, "replace an output directory that is not empty");
    return app.run(argc, argv, [&] { return merge_program(options); });
}
