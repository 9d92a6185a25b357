// How a run's adapter starts: with drawn factors, or with those of --init-lora-weights that look at the base or at
// data.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "lowrank/adapters/initial_eva.hpp"
#include "lowrank/adapters/initial_loftq.hpp"
#include "lowrank/data/loader.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"
#include "lowrank/train/evaluate.hpp"
#include "options.hpp"
#include "say.hpp"

namespace examples {

/// EVA from the training data, of which the supervised tokens count.
template <class T>
lowrank::LoraConfig start_from_data(lowrank::Gpt2<T>& model, const lowrank::LoraConfig& config,
                                    const lowrank::LoaderOptions& options, const lowrank::Dataset& data) {
    using namespace lowrank;
    DataLoader loader(data, options);
    std::vector<Batch> batches; // of a step that is not used up
    std::int64_t steps = loader.steps_per_epoch();
    const auto next = [&](Tensor<std::int32_t>& rows) {
        if (batches.empty()) {
            if (steps-- == 0) {
                return false;
            }
            batches = loader.next().micro_batches;
        }
        const Batch batch = std::move(batches.back());
        batches.pop_back();
        std::vector<std::int32_t> counted;
        for (std::size_t i = 0; i < batch.labels.size(); ++i) {
            if (batch.labels[i] != ignored_label) {
                counted.push_back(static_cast<std::int32_t>(i));
            }
        }
        rows = Tensor<std::int32_t>::from(counted, {static_cast<std::int64_t>(counted.size())});
        ForwardContext<Cpu> context;
        context.document_start = detail::document_start_of<Cpu>(batch);
        model.hidden(detail::batch_tensor<Cpu>(batch, batch.input_ids), context);
        return true;
    };
    return attach_eva<T, Cpu>(model, config, options.seed, EvaOptions(), next);
}

/// Attaches the adapter of the options, or makes all weights trainable, as `prepare` does, and gives the factors their
/// start. Returns the adapter's settings.
template <class T>
lowrank::AdapterConfig start_adapter(lowrank::Gpt2<T>& model, const FinetuneOptions& options,
                                     const lowrank::Dataset& data, const CLI::App& app) {
    using namespace lowrank;
    const std::string base_name = base_model_name(options.model);
    const std::uint64_t seed = options.loader.seed;
    LoraConfig named;
    set_init_lora_weights(named, options.init_lora_weights);
    if (named.init_lora_weights < LoraInit::pissa || !options.init_adapter.empty()) {
        return prepare(model, options, base_name, seed, app);
    }
    AdapterOptions drawn = options;
    drawn.init_lora_weights = "true";
    const AdapterConfig attached = prepare(model, drawn, base_name, seed, app); // which checks the options
    const auto* lora = std::get_if<LoraConfig>(&attached);
    if (lora == nullptr || options.trains_all_weights()) {
        throw OptionError("--init-lora-weights " + options.init_lora_weights + ": expected --method lora with it");
    }
    LoraConfig config = *lora;
    set_init_lora_weights(config, options.init_lora_weights);
    if (config.init_lora_weights == LoraInit::eva) {
        return start_from_data(model, config, options.loader, data);
    }
    if (config.init_lora_weights == LoraInit::loftq) {
        if (options.model.quantize != "nf4") {
            throw OptionError("--init-lora-weights loftq: expected --quantize nf4 with it");
        }
        Gpt2<T> original = load_gpt2<T>(options.model.model); // mapped; each matrix is read once
        std::map<std::string, std::shared_ptr<const Weight<Cpu>>> weights;
        for_each<Linear<T, Cpu>>(original, [&](const std::string& path, const Linear<T, Cpu>& layer) {
            weights[path] = layer.weight.frozen();
        });
        attach_loftq<T>(model, config, seed, [&](const std::string& path) { return weights.at(path); });
    } else {
        attach_from_base<T, Cpu>(model, config, seed);
    }
    return config;
}

} // namespace examples
