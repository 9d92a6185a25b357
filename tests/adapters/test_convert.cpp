// Adapters of every method as plain LoRA, rsLoRA's scale in α, and merges into 16 bits, quantized bases and tied
// tables.

#include <cmath>
#include <map>

#include "../io/temporary_directory.hpp"
#include "lowrank/adapters/adapter_set.hpp"
#include "lowrank/adapters/convert.hpp"
#include "lowrank/adapters/merge.hpp"
#include "lowrank/adapters/peft_files.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"
#include "models_testing.hpp"

using namespace lowrank;
using lowrank::testing::fixture;
using lowrank::testing::relative_error;

namespace {

using Model = Gpt2<float>;
using Ids = Tensor<std::int32_t>;

const Ids ids = Ids::from(std::vector<std::int32_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, {2, 5});

/// Adapters that PEFT made, of every method.
const std::vector<std::string> names{"peft_lora",      "peft_rslora_patterns", "peft_rsdora",
                                     "peft_lora_bias", "peft_embedding",       "peft_vera",
                                     "peft_ia3",       "peft_adalora",         "peft_rsdora_embedding"};

struct Adapted {
    Model model;
    AdapterConfig config;

    explicit Adapted(const std::string& name, const LoadOptions& options = {})
        : model(load_gpt2<float>(fixture("peft_base"), options)),
          config(load_adapter<float, Cpu>(model, fixture(name))) {}
};

Tensor<float> logits(const Model& model) {
    const NoGrad no_grad;
    return model.logits(model.hidden(ids));
}

} // namespace

TEST_CASE("any adapter becomes plain LoRA: at full rank it computes the same, below it the error is reported") {
    for (const std::string& name : names) {
        CAPTURE(name);
        Adapted adapted(name);
        const Tensor<float> expected = logits(adapted.model);
        const Conversion full = convert_to_lora<float, Cpu>(adapted.model, {.rank = 24}, adapted.config);
        CHECK(relative_error(logits(adapted.model), expected) <= 2e-5);
        for (const ConvertedLayer& layer : full.layers) {
            CHECK(layer.error <= 1e-5);
            CHECK(layer.rank == 24);
        }
        const TemporaryDirectory directory;
        save_adapter<float, Cpu>(adapted.model, full.config, directory.path());
        Model loaded = load_gpt2<float>(fixture("peft_base"));
        const auto read = std::get<LoraConfig>(load_adapter<float, Cpu>(loaded, directory.path()));
        CHECK(read.lora_alpha == 24);
        CHECK(relative_error(logits(loaded), expected) <= 2e-5);

        Adapted again(name);
        std::map<std::string, Tensor<float>> changes;
        for_each<Linear<float, Cpu>>(again.model, [&](const std::string& path, Linear<float, Cpu>& layer) {
            if (layer.adapter) {
                changes[path] = detail::delta_of(factors_of(layer, *layer.adapter));
            }
        });
        const Conversion half = convert_to_lora<float, Cpu>(again.model, {.rank = 0, .energy = 0.7}, again.config);
        for (const ConvertedLayer& layer : half.layers) {
            CAPTURE(layer.path);
            if (!changes.contains(layer.path)) {
                continue; // an embedding
            }
            CHECK(rank_at(half.config, layer.path) == layer.rank);
            CHECK(layer.error * layer.error <= 0.3 + 1e-5);
            const std::vector<float> s = svd(changes[layer.path], 24).s.to_vector();
            double kept = 0, all = 0;
            for (std::size_t i = 0; i < s.size(); ++i) {
                all += double(s[i]) * double(s[i]);
                kept += static_cast<std::int64_t>(i) < layer.rank - 1 ? double(s[i]) * double(s[i]) : 0;
            }
            CHECK(kept < 0.7 * all); // one rank less would not be enough
        }
    }
    Model bare = load_gpt2<float>(fixture("peft_base"));
    const auto refused = [&](Model& model, const ConvertOptions& options) {
        CHECK_THROWS_AS((convert_to_lora<float, Cpu>(model, options, LoraConfig())), OptionError);
    };
    refused(bare, {.rank = 1});
    Adapted one("peft_lora");
    const Tensor<float> before = logits(one.model);
    for (const ConvertOptions& options :
         {ConvertOptions{}, ConvertOptions{.rank = -1}, ConvertOptions{.rank = 2, .energy = 0.5},
          ConvertOptions{.rank = 0, .energy = 1.5}, ConvertOptions{.rank = 0, .energy = NAN}}) {
        refused(one.model, options);
    }
    CHECK(logits(one.model).to_vector() == before.to_vector());
}

TEST_CASE("rsLoRA's scale in alpha: the same adapter without use_rslora") {
    for (const std::string name : {"peft_rslora", "peft_rslora_patterns", "peft_lora"}) {
        CAPTURE(name);
        Adapted adapted(name);
        const auto config = std::get<LoraConfig>(adapted.config);
        const LoraConfig baked = with_baked_scale(config, target_paths<float, Cpu>(adapted.model, adapted.config));
        CHECK_FALSE(baked.use_rslora);
        for (const std::string& path : target_paths<float, Cpu>(adapted.model, adapted.config)) {
            CHECK(lora_scale(alpha_at(baked, path), rank_at(baked, path), false) ==
                  doctest::Approx(lora_scale(alpha_at(config, path), rank_at(config, path), config.use_rslora))
                      .epsilon(1e-12));
        }
        const TemporaryDirectory directory;
        save_adapter<float, Cpu>(adapted.model, baked, directory.path());
        Model loaded = load_gpt2<float>(fixture("peft_base"));
        load_adapter<float, Cpu>(loaded, directory.path());
        CHECK(relative_error(logits(loaded), logits(adapted.model)) <= 1e-6);
    }
}

TEST_CASE("a merge into 16 bits rounds once, says how much, and is undone") {
    for (const DType type : {DType::bf16, DType::f16, DType::f32}) {
        CAPTURE(name_of(type));
        Adapted adapted("peft_rsdora");
        const Tensor<float> before = logits(adapted.model);
        double largest = 0, bound = 0;
        std::map<std::string, Tensor<float>> exact;
        for_each<Linear<float, Cpu>>(adapted.model, [&](const std::string& path, Linear<float, Cpu>& layer) {
            exact[path] = layer.adapter->merged(layer);
        });
        MergedAdapters merged = merge<float, Cpu>(adapted.model, type);
        CHECK(merged.size() == exact.size());
        for_each<WeightSlot<float, Cpu>>(adapted.model, [&](const std::string& path, WeightSlot<float, Cpu>& slot) {
            CHECK(slot.frozen()->storage() == name_of(type));
            const auto found = exact.find(path.substr(0, path.rfind('.')));
            if (found == exact.end()) {
                return;
            }
            const std::vector<float> values = found->second.to_vector(), stored = dense_values(slot).to_vector();
            for (std::size_t i = 0; i < values.size(); ++i) {
                const float rounded = type == DType::bf16  ? float(bf16(values[i]))
                                      : type == DType::f16 ? float(fp16(values[i]))
                                                           : values[i];
                CHECK(stored[i] == rounded);
                largest = std::max(largest, std::abs(double(stored[i]) - double(values[i])));
                bound = std::max(bound, std::abs(double(values[i])));
            }
        });
        CHECK(merged.rounding_error() >= largest); // embeddings were converted, too
        CHECK(merged.rounding_error() <= bound * 4 / 256);
        CHECK((merged.rounding_error() == 0) == (type == DType::f32));
        CHECK(merged.rounded_most().empty() == (type == DType::f32));
        CHECK(relative_error(logits(adapted.model), before) <= (type == DType::f32 ? 1e-5 : 2e-2));
        merged.unmerge();
        CHECK(logits(adapted.model).to_vector() == before.to_vector());
    }
    Adapted adapted("peft_lora");
    CHECK_THROWS_AS((merge<float, Cpu>(adapted.model, DType::f64)), OptionError);
    // What does not fit into 16 bits is found before anything changes.
    bool first = true;
    for_each<Linear<float, Cpu>>(adapted.model, [&](const std::string&, Linear<float, Cpu>& layer) {
        if (layer.adapter && first) {
            layer.adapter->parameters(
                [](const std::string&, Tensor<float>& values) { values.mutable_data()[0] = 1e4f; });
            first = false;
        }
    });
    const Tensor<float> before = logits(adapted.model);
    CHECK_THROWS_AS((merge<float, Cpu>(adapted.model, DType::f16)), NumericError);
    CHECK(logits(adapted.model).to_vector() == before.to_vector());
}

TEST_CASE("an adapter over an NF4 base is merged into the decoded base") {
    for (const std::string& name : names) {
        CAPTURE(name);
        Adapted adapted(name, {.nf4 = Nf4Options{}});
        const Tensor<float> before = logits(adapted.model);
        for (const auto storage : {std::optional<DType>(), std::optional(DType::f32), std::optional(DType::bf16)}) {
            MergedAdapters merged = merge<float, Cpu>(adapted.model, storage);
            CHECK(relative_error(logits(adapted.model), before) <= (storage == DType::bf16 ? 2e-2 : 1e-5));
            for_each<Linear<float, Cpu>>(adapted.model, [&](const std::string&, Linear<float, Cpu>& layer) {
                CHECK(layer.adapter == nullptr);
                CHECK((!storage || layer.weight.frozen()->storage() == name_of(*storage)));
            });
            merged.unmerge();
            CHECK(logits(adapted.model).to_vector() == before.to_vector());
        }
    }
}

TEST_CASE("a table whose rows an adapter changes is no longer the head's, and its merge is saved so") {
    for (const std::string name : {"peft_embedding", "peft_dora_wte"}) {
        CAPTURE(name);
        Adapted adapted(name);
        REQUIRE(adapted.model.config.tie_word_embeddings);
        const Tensor<float> before = logits(adapted.model);
        MergedAdapters merged = merge<float, Cpu>(adapted.model);
        CHECK_FALSE(adapted.model.config.tie_word_embeddings);
        CHECK(relative_error(logits(adapted.model), before) <= 1e-5);
        const TemporaryDirectory directory;
        save_gpt2(adapted.model, directory.path());
        CHECK(relative_error(logits(load_gpt2<float>(directory.path())), before) <= 1e-5);
        merged.unmerge();
        CHECK(adapted.model.config.tie_word_embeddings);
        CHECK(logits(adapted.model).to_vector() == before.to_vector());
    }
}

TEST_CASE("PEFT's adapters side by side on one GPT-2: mixed rows, saved and loaded by name") {
    Gpt2<float> model = load_gpt2<float>(fixture("peft_base"));
    AdapterSet<float, Cpu, Gpt2<float>> set(model);
    const std::vector<std::string> own{"peft_lora", "peft_rsdora_embedding", "peft_lora_bias"};
    const Ids tokens = Ids::from(std::vector<std::int32_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, {4, 3});
    const auto by_row = [](std::vector<std::string> rows) {
        ForwardContext<Cpu> context;
        context.adapter_names = std::make_shared<const std::vector<std::string>>(std::move(rows));
        return context;
    };
    const NoGrad no_grad;
    std::vector<Tensor<float>> alone;
    for (std::size_t i = 0; i < own.size(); ++i) {
        set.load(own[i], fixture(own[i]));
        Gpt2<float> single = load_gpt2<float>(fixture("peft_base"));
        load_adapter<float, Cpu>(single, fixture(own[i]));
        const auto row = static_cast<std::int64_t>(i);
        alone.push_back(single.hidden(contiguous(slice(tokens, 0, row, row + 1))));
    }
    alone.push_back(load_gpt2<float>(fixture("peft_base")).hidden(contiguous(slice(tokens, 0, 3, 4))));
    ForwardContext<Cpu> context = by_row({own[0], own[1], own[2], ""});
    CHECK(relative_error(model.hidden(tokens, context), lowrank::concat(alone, 0)) <= 2e-6);

    const TemporaryDirectory directory;
    CHECK(set.save(own[0], directory.path()) == directory.path() / own[0]);
    for (const std::string& name : own) {
        set.save(name, directory.path());
    }
    Gpt2<float> again = load_gpt2<float>(fixture("peft_base"));
    AdapterSet<float, Cpu, Gpt2<float>> reloaded(again);
    reloaded.load("default", directory.path() / own[2]);
    CHECK(reloaded.save("default", directory.path()) == directory.path());
    CHECK(std::filesystem::exists(directory.path() / "adapter_config.json"));
    reloaded.load(own[0], directory.path() / own[0]);
    reloaded.load(own[1], directory.path() / own[1]);
    context = by_row({own[0], own[1], "default", ""});
    CHECK(again.hidden(tokens, context).to_vector() ==
          model.hidden(tokens, by_row({own[0], own[1], own[2], ""})).to_vector());

    const std::vector<std::string> before = set.names();
    CHECK_THROWS_AS(set.load("x", directory.path() / "gone"), FileError);
    CHECK_THROWS_AS(set.load("x", fixture("peft_bias_all")), OptionError);
    CHECK(set.names() == before);
    CHECK(again.hidden(tokens, context).to_vector() ==
          model.hidden(tokens, by_row({own[0], own[1], own[2], ""})).to_vector());
}
