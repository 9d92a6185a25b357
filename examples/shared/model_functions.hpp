// The functions of a model that depend on its type, for the two translation units that define them.
#pragma once

#include <algorithm>
#include <string>
#include <type_traits>
#include <vector>

#include <fmt/ranges.h>

#include "adapter_options.hpp"
#include "lowrank/adapters/peft_files.hpp"
#include "lowrank/core/parallel.hpp"
#include "lowrank/generate/generate.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"
#include "lowrank/optim/loraplus.hpp"
#include "model.hpp"
#include "samples.hpp"
#include "say.hpp"

namespace examples {

inline void notice_unknown_keys(const std::string& file, const std::vector<std::string>& keys) {
    if (!keys.empty()) {
        say(stderr, "{}: keys that are not known are ignored: {}\n", file, fmt::join(keys, ", "));
    }
}

template <class T>
lowrank::Gpt2<T> load_model(const ModelOptions& options, bool trains_all_weights) {
    if (options.threads > 0) {
        lowrank::set_num_threads(options.threads);
    }
    lowrank::LoadOptions load{.convert_wider = !trains_all_weights};
    if (options.quantize == "nf4") {
        if (trains_all_weights) {
            throw lowrank::OptionError("--quantize nf4: --method full trains all weights, and these are frozen");
        }
        load.nf4 = lowrank::Nf4Options{options.double_quantization, lowrank::dtype_of<T>};
    } else if (options.double_quantization) {
        throw lowrank::OptionError("--bnb-4bit-use-double-quant: expected --quantize nf4 with it");
    }
    lowrank::Gpt2<T> model = lowrank::load_gpt2<T>(options.model, load);
    notice_unknown_keys(options.model + "/config.json", model.config.unknown_keys);
    if (!options.adapter.empty()) {
        const lowrank::AdapterConfig config = lowrank::load_adapter<T, lowrank::Cpu>(model, options.adapter);
        notice_unknown_keys(options.adapter + "/adapter_config.json", lowrank::targets(config).unknown_keys);
    }
    return model;
}

template <class T>
void require_finite_weights(lowrank::Gpt2<T>& model) {
    lowrank::for_each_parameter(model, []<class Field>(const std::string& name, const Field& field) {
        if constexpr (std::is_same_v<Field, lowrank::WeightSlot<float, lowrank::Cpu>>) {
            if (field.frozen()) {
                lowrank::require_finite(name, field.frozen()->template dense_copy<float>());
            }
        } else if (field.defined()) {
            lowrank::require_finite(name, field);
        }
    });
    for (const auto& tensor : lowrank::trainable_tensors<T, lowrank::Cpu>(model)) {
        lowrank::require_finite(tensor.name, tensor.values);
    }
}

/// PEFT's rules pass over what matches nothing. On a command line that is a slip, and is refused.
template <class T>
void refuse_idle_choices(lowrank::Gpt2<T>& model, const AdapterOptions& options, const lowrank::AdapterConfig& config) {
    const auto refuse = [](const std::string& option, const std::string& name, const std::string& what) {
        throw lowrank::OptionError(option + ": '" + name + "' matches " + what);
    };
    std::vector<std::string> adaptable;
    lowrank::for_each<lowrank::Linear<T, lowrank::Cpu>>(
        model, [&](const std::string& path, auto&) { adaptable.push_back(path); });
    if (std::holds_alternative<lowrank::LoraConfig>(config)) {
        lowrank::for_each<lowrank::Embedding<T, lowrank::Cpu>>(
            model, [&](const std::string& path, auto&) { adaptable.push_back(path); });
    }
    const auto none_of = [](const std::vector<std::string>& paths, const lowrank::AdapterTargets& one) {
        return std::none_of(paths.begin(), paths.end(),
                            [&](const std::string& path) { return lowrank::targets_module(one, path, false); });
    };
    const auto choice = [](const lowrank::ModuleSelection& modules) {
        lowrank::AdapterTargets one;
        one.target_modules = modules;
        return one;
    };
    for (const std::string& name : options.target_modules) {
        if (none_of(adaptable, choice(*selection({name})))) {
            refuse("--target-modules", name, "no linear layer of the model");
        }
    }
    for (const std::string& name : options.exclude_modules) {
        if (none_of(adaptable, choice(*selection({name}))) && !model.is_head(name)) {
            refuse("--exclude-modules", name, "no linear layer of the model");
        }
    }
    for (const std::int64_t layer : options.layers_to_transform) {
        if (layer >= model.config.n_layer) {
            refuse("--layers-to-transform", std::to_string(layer),
                   lowrank::concat("none of the layers 0 to ", model.config.n_layer - 1));
        }
    }
    const std::vector<std::string> adapted = lowrank::target_paths<T, lowrank::Cpu>(model, config);
    const auto check_pattern = [&](const std::string& option, const auto& pattern) {
        for (const auto& entry : pattern) {
            if (none_of(adapted, choice("(.*\\.)?(" + entry.first + ")"))) {
                refuse(option, entry.first, "no adapted layer");
            }
        }
    };
    if (const auto* lora = std::get_if<lowrank::LoraConfig>(&config)) {
        check_pattern("--rank-pattern", lora->rank_pattern);
        check_pattern("--alpha-pattern", lora->alpha_pattern);
    }
}

template <class T>
lowrank::AdapterConfig prepare(lowrank::Gpt2<T>& model, const AdapterOptions& options, const std::string& base_name,
                               std::uint64_t seed, const CLI::App& app) {
    if (options.trains_all_weights()) {
        lowrank::for_each_parameter(model,
                                    [](const std::string&, auto& field) { lowrank::set_trainable(field, true); });
        return {};
    }
    if (!options.init_adapter.empty()) {
        return lowrank::load_adapter<T, lowrank::Cpu>(model, options.init_adapter, [&](lowrank::AdapterConfig& loaded) {
            lowrank::targets(loaded).base_model_name_or_path = base_name;
            if (options.method == "lora-fa") {
                auto* lora = std::get_if<lowrank::LoraConfig>(&loaded);
                if (lora == nullptr) {
                    throw lowrank::OptionError("--method lora-fa: the adapter of --init-adapter is no LoRA");
                }
                lora->freeze_a = true;
            }
            std::visit(
                [&](auto& one) {
                    if constexpr (requires { one.lora_dropout; }) {
                        one.lora_dropout =
                            app.count("--lora-dropout") > 0 ? options.lora.lora_dropout : one.lora_dropout;
                    }
                },
                loaded);
        });
    }
    const lowrank::AdapterConfig config = adapter_config(options, base_name);
    lowrank::validate(config, "adapter settings");
    refuse_idle_choices(model, options, config);
    lowrank::attach_adapter<T, lowrank::Cpu>(model, config, seed);
    return config;
}

template <class T>
std::vector<lowrank::ParameterGroup<float>> parameter_groups(lowrank::Gpt2<T>& model, double learning_rate,
                                                             double loraplus_lr_ratio) {
    const lowrank::ParameterGroup<float> all = lowrank::trained_group<T>(model);
    if (loraplus_lr_ratio == 0) {
        return {all};
    }
    return lowrank::loraplus_groups(all.names, all.parameters, learning_rate, loraplus_lr_ratio);
}

template <class T>
std::string continuation(const lowrank::Gpt2<T>& model, const Sample& sample, std::int64_t most_tokens) {
    lowrank::SamplerOptions greedy;
    greedy.greedy = true;
    lowrank::Sampler sampler(greedy);
    std::vector<std::int32_t> ids;
    lowrank::generate(model, sample.prompt_ids(), most_tokens, sample.reader().eos_id(), sampler, [&](std::int32_t id) {
        ids.push_back(id);
        return true;
    });
    return sample.reader().text(ids);
}

} // namespace examples

/// Defines them for T.
#define EXAMPLES_MODEL_FUNCTIONS(T)                                                                                    \
    namespace examples {                                                                                               \
    template lowrank::Gpt2<T> load_model<T>(const ModelOptions&, bool);                                                \
    template void require_finite_weights(lowrank::Gpt2<T>&);                                                           \
    template lowrank::AdapterConfig prepare(lowrank::Gpt2<T>&, const AdapterOptions&, const std::string&,              \
                                            std::uint64_t, const CLI::App&);                                           \
    template std::vector<lowrank::ParameterGroup<float>> parameter_groups(lowrank::Gpt2<T>&, double, double);          \
    template std::string continuation(const lowrank::Gpt2<T>&, const Sample&, std::int64_t);                           \
    }
