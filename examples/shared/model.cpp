#include "model.hpp"

#include <type_traits>
#include <vector>

#include <fmt/ranges.h>

#include "lowrank/adapters/peft_files.hpp"
#include "lowrank/core/parallel.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"
#include "number.hpp"
#include "say.hpp"

namespace examples {

namespace {

void notice_unknown_keys(const std::string& file, const std::vector<std::string>& keys) {
    if (!keys.empty()) {
        say(stderr, "{}: keys that are not known are ignored: {}\n", file, fmt::join(keys, ", "));
    }
}

} // namespace

void add_model_options(CLI::App& app, ModelOptions& options, bool with_adapter) {
    app.add_option("--model", options.model,
                   "directory of a GPT-2 as Transformers saves it: config.json, model.safetensors, tokenizer files")
        ->required();
    if (with_adapter) {
        app.add_option("--adapter", options.adapter, "directory of a LoRA adapter as PEFT saves it");
    }
    app.add_option("--threads", options.threads, "threads; 0 takes all CPUs")->check(number<int>(0, 1024));
}

Model load_model(const ModelOptions& options) {
    if (options.threads > 0) {
        lowrank::set_num_threads(options.threads);
    }
    Model model = lowrank::load_gpt2<float>(options.model);
    notice_unknown_keys(options.model + "/config.json", model.config.unknown_keys);
    if (!options.adapter.empty()) {
        const lowrank::LoraConfig config = lowrank::load_adapter<float, lowrank::Cpu>(model, options.adapter);
        notice_unknown_keys(options.adapter + "/adapter_config.json", config.unknown_keys);
    }
    return model;
}

void require_finite_weights(Model& model) {
    lowrank::for_each_parameter(model, []<class Field>(const std::string& name, const Field& field) {
        if constexpr (std::is_same_v<Field, lowrank::WeightSlot<float, lowrank::Cpu>>) {
            if (field.frozen()) {
                lowrank::require_finite(name, field.frozen()->template dense_copy<float>());
            }
        } else if (field.defined()) {
            lowrank::require_finite(name, field);
        }
    });
    for (const auto& tensor : lowrank::trainable_tensors<float, lowrank::Cpu>(model)) {
        lowrank::require_finite(tensor.name, tensor.values);
    }
}

} // namespace examples
