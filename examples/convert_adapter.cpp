// convert_adapter: writes any adapter as plain LoRA, which every program that knows LoRA reads.

#include <algorithm>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "lowrank/adapters/convert.hpp"
#include "lowrank/adapters/peft_files.hpp"
#include "lowrank/io/atomic_directory.hpp"
#include "model.hpp"
#include "number.hpp"
#include "output.hpp"
#include "program.hpp"
#include "say.hpp"

using namespace lowrank;

namespace {

struct Options {
    examples::ModelOptions model;
    std::string output;
    ConvertOptions convert;
    bool bake_rslora = false, overwrite = false;
};

int convert_program(const Options& options) {
    const int ways = (options.convert.rank > 0) + (options.convert.energy > 0) + options.bake_rslora;
    if (ways != 1) {
        throw OptionError("expected one of --rank, --energy and --bake-rslora");
    }
    examples::check_output(options.output, options.overwrite,
                           {{"--model", options.model.model}, {"--adapter", options.model.adapter}});
    examples::ModelOptions base = options.model;
    base.adapter.clear();
    examples::Model model = examples::load_model(base);
    AdapterConfig config = load_adapter<float, Cpu>(model, options.model.adapter);
    if (options.bake_rslora) {
        const auto* lora = std::get_if<LoraConfig>(&config);
        if (lora == nullptr || !lora->use_rslora) {
            throw OptionError("--bake-rslora: the adapter has no use_rslora");
        }
        config = with_baked_scale(*lora, target_paths<float, Cpu>(model, config));
    } else {
        const Conversion conversion = convert_to_lora<float, Cpu>(model, options.convert, config);
        double worst = 0;
        for (const ConvertedLayer& layer : conversion.layers) {
            examples::say(stdout, "{}: rank {}, error {:.2e}\n", layer.path, layer.rank, layer.error);
            worst = std::max(worst, layer.error);
        }
        examples::say(stdout, "largest error {:.2e} of a layer's change\n", worst);
        config = conversion.config;
    }
    AtomicDirectory output(options.output);
    save_adapter<float, Cpu>(model, config, output.path());
    examples::copy_text_files(options.model.model, output.path());
    examples::copy_text_files(options.model.adapter, output.path());
    output.commit();
    examples::say(stdout, "converted: {}\n", options.output);
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    examples::Program app(
        "Writes an adapter of any method as plain LoRA: the largest singular values of what it changes, "
        "or the same factors with rsLoRA's scale in alpha.");
    Options options;
    examples::add_model_options(app, options.model, true);
    examples::add_quantization_options(app, options.model);
    app.get_option("--adapter")->required();
    app.add_option("--rank", options.convert.rank, "rank of every layer")
        ->check(examples::number<std::int64_t>(1, 1 << 20));
    app.add_option("--energy", options.convert.energy,
                   "share of the squared singular values that is kept: the smallest rank that holds it, layer by layer")
        ->check(examples::number<double>(0, 1));
    app.add_flag("--bake-rslora", options.bake_rslora,
                 "keep the factors, and write alpha times the root of the rank for programs that know no use_rslora");
    app.add_option("--output", options.output, "directory to write: the adapter, as PEFT saves it")->required();
    app.add_flag("--overwrite-output-dir", options.overwrite, "replace an output directory that is not empty");
    return app.run(argc, argv, [&] { return convert_program(options); });
}
