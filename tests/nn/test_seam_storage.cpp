// The Weight seam: GPT-2 trains adapters on NF4, and on a storage that only this test knows.

#include "io/temporary_directory.hpp"
#include "lowrank/adapters/attach.hpp"
#include "lowrank/adapters/merge.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"
#include "lowrank/optim/adamw.hpp"
#include "models_testing.hpp"
#include "nn/int8_weight.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

using Model = Gpt2<float>;
using Slot = WeightSlot<float, Cpu>;

/// A fixture's model with every matrix in int8 or NF4, and the same numbers in dense fp32.
Model quantized_model(bool nf4) {
    Model model = load_gpt2<float>(fixture("gpt2_untied"));
    for_each<Slot>(model, [&](const std::string&, Slot& slot) {
        if (nf4) {
            slot = Nf4Weight<Cpu>::quantized(*slot.frozen(), {true, DType::bf16});
        } else {
            slot = std::make_shared<Int8Weight>(*slot.frozen());
        }
    });
    return model;
}
Model dense_model(bool nf4) {
    Model model = quantized_model(nf4);
    for_each<Slot>(model, [](const std::string&, Slot& slot) {
        slot = std::make_shared<DenseWeight<float, Cpu>>(slot.frozen()->dense_copy<float>(), slot.orientation());
    });
    return model;
}

struct Rows {
    Tensor<std::int32_t> ids, labels;
    Rows() {
        const auto reference = SafetensorsFile::open((fixture("gpt2_untied") / "reference.safetensors").string());
        ids = ids_of(reference, "input_ids");
        labels = ids_of(reference, "labels");
    }
};

Tensor<float> logits(const Model& model) {
    const NoGrad no_grad;
    return model.logits(model.hidden(Rows().ids));
}

/// Trains what an adapter left trainable; the losses before each step.
std::vector<double> train(Model& model) {
    ParameterGroup<float> group;
    for (const auto& tensor : trainable_tensors<float, Cpu>(model)) {
        group.names.push_back(tensor.name);
        group.parameters.push_back(tensor.values);
    }
    AdamWOptions options;
    options.learning_rate = 1e-2;
    AdamW<float> optimizer({group}, options);
    const Rows rows;
    std::vector<double> losses;
    for (int step = 0; step < 6; ++step) {
        const Tensor<float> loss =
            model.loss(rows.ids, rows.labels) * (1.0 / static_cast<double>(supervised_count(rows.labels)));
        losses.push_back(static_cast<double>(loss.item()));
        optimizer.step(backward(loss));
    }
    return losses;
}

} // namespace

TEST_CASE("a model in int8 computes what its decoded matrices compute, in a quarter of their memory") {
    Model original = load_gpt2<float>(fixture("gpt2_untied")), quantized = quantized_model(false);
    std::size_t before = 0, after = 0;
    for_each<Slot>(original, [&](const std::string&, Slot& slot) { before += slot.frozen()->bytes(); });
    for_each<Slot>(quantized, [&](const std::string&, Slot& slot) { after += slot.frozen()->bytes(); });
    CHECK(after < before * 3 / 10);
    CHECK(logits(quantized).to_vector() == logits(dense_model(false)).to_vector());
    const double error = relative_error(logits(quantized), logits(original));
    CHECK(error > 1e-4); // it is quantized,
    CHECK(error < 3e-2); // and still the model

    const TemporaryDirectory saved;
    save_gpt2(quantized, saved.path());
    CHECK(logits(load_gpt2<float>(saved.path())).to_vector() == logits(quantized).to_vector());
}

TEST_CASE("LoRA and DoRA train and merge over int8 and NF4 as over the decoded matrices") {
    for (const int setting : {0, 1, 2, 3}) {
        CAPTURE(setting);
        const bool use_dora = setting % 2 == 1, nf4 = setting >= 2;
        LoraConfig config;
        config.target_modules = std::string("all-linear");
        config.use_dora = use_dora;
        config.lora_alpha = 16;
        Model quantized = quantized_model(nf4), dense = dense_model(nf4);
        attach_lora<float, Cpu>(quantized, config, 3);
        attach_lora<float, Cpu>(dense, config, 3);
        const std::vector<double> losses = train(quantized), expected = train(dense);
        for (std::size_t i = 0; i < losses.size(); ++i) {
            CAPTURE(i);
            CHECK(std::abs(losses[i] - expected[i]) <= 1e-6 * expected[i]);
            CHECK((i == 0 || losses[i] < losses[i - 1]));
        }
        CHECK(losses.back() < 0.9 * losses.front());

        const Tensor<float> adapted = logits(quantized);
        auto merged = merge<float, Cpu>(quantized);
        CHECK(merged.size() == 8);
        CHECK(quantized.transformer.h[0].attn.c_attn.weight.frozen()->storage() == "F32");
        CHECK(relative_error(logits(quantized), adapted) <= 1e-5);
        merged.unmerge();
        CHECK(quantized.transformer.h[0].attn.c_attn.weight.frozen()->storage() == (nf4 ? "NF4" : "INT8"));
        CHECK(logits(quantized).to_vector() == adapted.to_vector());
    }
}
