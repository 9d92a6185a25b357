// GPT-2 with bf16 activations: the references' numbers within what rounding to 8 bits explains.

#include <algorithm>
#include <map>

#include "lowrank/models/gpt2_checkpoint.hpp"
#include "models_testing.hpp"

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

} // namespace

TEST_CASE("logits, loss and gradients in bf16") {
    for (const std::string& name : fixtures_with("gpt2_", "reference.safetensors")) {
        CAPTURE(name);
        Gpt2<bf16> model = load_gpt2<bf16>(fixture(name));
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
}
