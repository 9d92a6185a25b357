// GPT-2 with bf16 activations: the references' numbers within what rounding to 8 bits explains.

#include <algorithm>
#include <array>
#include <map>

#include "gpt2_laws.hpp"
#include "io/temporary_directory.hpp"
#include "lowrank/adapters/merge.hpp"
#include "lowrank/adapters/peft_files.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

/// max|Δ| / max|reference| of the logits, and the largest of any parameter's gradient.
struct Errors {
    double logits, gradients;
};

/// Those of torch 2.15 under autocast in bf16, on the CPU, for the same files. (ReLU's slope jumps: where rounding
/// turns a sign a whole term is lost.)
const std::map<std::string, Errors> autocast{
    {"gpt2_bf16", {0.0076, 0.0176}},          {"gpt2_fp16", {0.0130, 0.0162}},    {"gpt2_inner", {0.0071, 0.0173}},
    {"gpt2_inverse_layer", {0.0087, 0.0170}}, {"gpt2_masks", {0.0088, 0.0201}},   {"gpt2_noprefix", {0.0078, 0.0151}},
    {"gpt2_relu", {0.0118, 0.1208}},          {"gpt2_sharded", {0.0137, 0.0201}}, {"gpt2_tied", {0.0093, 0.0150}},
    {"gpt2_unscaled", {0.0159, 0.0377}},      {"gpt2_untied", {0.0075, 0.0181}},
};

/// Both round at about the same places, and each figure is the largest of many random errors: they lie between half and
/// one and a half of torch's. A third says that it is bf16 at all.
void check_close(double found, double theirs) {
    CHECK(found <= 2 * theirs);
    CHECK(found >= theirs / 3);
}

/// Logits, loss and gradients of a fixture against fp32's.
void check_numbers(const std::string& name, const LoadOptions& options) {
    Gpt2<bf16> model = load_gpt2<bf16>(fixture(name), options);
    const auto reference = SafetensorsFile::open((fixture(name) / "reference.safetensors").string());
    const Tensor<std::int32_t> ids = ids_of(reference, "input_ids"), labels = ids_of(reference, "labels");
    Errors found{0, 0};
    {
        const NoGrad no_grad;
        found.logits = relative_error(model.logits(model.hidden(ids)), tensor_of(reference, "logits"));
    }
    for_each_parameter(model, [](const std::string&, auto& field) { set_trainable(field, true); });
    const Tensor<float> loss = model.loss(ids, labels) * (1.0 / static_cast<double>(supervised_count(labels)));
    const Gradients gradients = backward(loss);
    for_each_parameter(model, [&](const std::string& path, auto& field) {
        if (field.defined()) {
            const Tensor<float> expected = tensor_of(reference, "grad." + path);
            found.gradients = std::max(found.gradients, relative_error(gradients[trained_values(field)], expected));
        }
    });
    check_close(found.logits, autocast.at(name).logits);
    check_close(found.gradients, autocast.at(name).gradients);
    CHECK(relative_error(reshape(loss, {1}), tensor_of(reference, "loss")) <= 2 * autocast.at(name).logits);
}

Tensor<float> logits_of(const Gpt2<bf16>& model, const Ids& ids) {
    return model.logits(model.hidden(ids));
}

std::string storage_of(const auto& model) {
    return model.transformer.h[0].mlp.c_fc.weight.frozen()->storage();
}

} // namespace

TEST_CASE("logits, loss and gradients in bf16, with weights as they are in the file and in bf16") {
    for (const std::string& name : fixtures_with("gpt2_", "reference.safetensors")) {
        for (const bool convert_wider : {false, true}) {
            CAPTURE(name);
            CAPTURE(convert_wider);
            check_numbers(name, {.convert_wider = convert_wider});
        }
    }
}

TEST_CASE("matrices are converted where that is asked for and makes them smaller") {
    const LoadOptions narrow{.convert_wider = true};
    CHECK(storage_of(load_gpt2<bf16>(fixture("gpt2_tied"))) == "F32");
    CHECK(storage_of(load_gpt2<bf16>(fixture("gpt2_tied"), narrow)) == "BF16");
    CHECK(storage_of(load_gpt2<bf16>(fixture("gpt2_bf16"), narrow)) == "BF16");
    CHECK(storage_of(load_gpt2<bf16>(fixture("gpt2_fp16"), narrow)) == "F16");
    CHECK(storage_of(load_gpt2<float>(fixture("gpt2_tied"), narrow)) == "F32");
    CHECK(storage_of(load_gpt2<float>(fixture("gpt2_bf16"), narrow)) == "BF16");

    Gpt2<bf16> converted = load_gpt2<bf16>(fixture("gpt2_sharded"), narrow);
    const Gpt2<float> exact = load_gpt2<float>(fixture("gpt2_sharded"));
    const auto values = exact.transformer.h[1].attn.c_proj.weight.frozen()->dense_copy<float>().to_vector();
    const auto rounded = converted.transformer.h[1].attn.c_proj.weight.frozen()->dense_copy<float>().to_vector();
    for (std::size_t i = 0; i < values.size(); ++i) {
        REQUIRE(rounded[i] == convert<float>(bf16(values[i])));
    }
    // Saved and mapped, they are the same weights.
    TemporaryDirectory directory;
    save_gpt2(converted, directory.path());
    const Gpt2<bf16> mapped = load_gpt2<bf16>(directory.path());
    CHECK(storage_of(mapped) == "BF16");
    const Ids ids = Ids::from(documents.ids[1], {1, 11});
    CHECK(logits_of(mapped, ids).to_vector() == logits_of(converted, ids).to_vector());
}

TEST_CASE("the laws of GPT-2 in bf16: packing and padding change what rounding explains, checkpointing no bit") {
    check_packing<bf16>(5e-3);
    check_padding<bf16>(5e-3);
    check_checkpointing<bf16>();
}

TEST_CASE("merged adapters in bf16: what the adapted layers compute, and one rounding less") {
    const NoGrad no_grad;
    const Ids ids = Ids::from(std::vector<std::int32_t>{3, 14, 15, 40, 35, 8, 9, 7, 9}, {1, 9});
    for (const char* name : {"peft_lora", "peft_dora", "peft_lora_bias", "peft_vera", "peft_ia3_inputs",
                             "peft_embedding", "peft_rsdora_embedding"}) {
        CAPTURE(name);
        Gpt2<bf16> model = load_gpt2<bf16>(fixture("peft_base"), {.convert_wider = true});
        const Tensor<float> base = logits_of(model, ids);
        load_adapter<bf16, Cpu>(model, fixture(name));
        const Tensor<float> adapted = logits_of(model, ids);
        CHECK(relative_error(adapted, base) > 0.1);
        merge<bf16, Cpu>(model);
        CHECK(relative_error(logits_of(model, ids), adapted) <= 2e-2);
    }
}

TEST_CASE("cached logits in bf16 are those without a cache") {
    const NoGrad no_grad;
    const Gpt2<bf16> model = load_gpt2<bf16>(fixture("gpt2_tied"));
    const std::vector<std::int32_t>& text = documents.ids[1];
    auto caches = model.make_caches(std::ssize(text));
    std::int64_t past = 0;
    for (const std::int64_t piece : {4, 1, 3, 1, 1, 1}) {
        const std::vector<std::int32_t> ids(text.begin() + past, text.begin() + past + piece);
        const Tensor<bf16> states = model.hidden(Ids::from(ids, {1, piece}), {}, std::array{&caches});
        past += piece;
        const Tensor<bf16> all =
            model.hidden(Ids::from(std::vector<std::int32_t>(text.begin(), text.begin() + past), {1, past}));
        CHECK(relative_error(model.logits(slice(states, 1, piece - 1)), model.logits(slice(all, 1, past - 1))) <= 5e-3);
    }
}
