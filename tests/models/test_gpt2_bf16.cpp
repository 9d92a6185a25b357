// GPT-2 with bf16 activations: the fp32 model's numbers within what rounding to 8 bits explains.

#include <cmath>

#include "lowrank/adapters/attach.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"
#include "models_testing.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

/// A bf16 value is off by up to u = 2^-9 of itself. On its way through these models of 2 or 3 layers a hidden state is
/// rounded 2 + 7 · layers times (16 or 23), the logits once more; errors of random sign add up like √n: 4 to 5 u.
/// Twice that, since a maximum over all logits is compared; the worst case, all errors of one sign, would be 24 u.
constexpr double u = 0x1p-9;
constexpr double tolerance = 10 * u;

} // namespace

TEST_CASE("logits, loss and adapter gradients in bf16") {
    for (const std::string& name : fixtures_with("gpt2_", "reference.safetensors")) {
        CAPTURE(name);
        Gpt2<bf16> model = load_gpt2<bf16>(fixture(name));
        const auto reference = SafetensorsFile::open((fixture(name) / "reference.safetensors").string());
        const Tensor<std::int32_t> ids = ids_of(reference, "input_ids"), labels = ids_of(reference, "labels");
        {
            const NoGrad no_grad;
            const double error = relative_error(model.logits(model.hidden(ids)), tensor_of(reference, "logits"));
            CHECK(error <= tolerance);
            CHECK(error > u / 2); // it is bf16
        }
        const double scale = 1.0 / static_cast<double>(supervised_count(labels));
        CHECK(relative_error(reshape(model.loss(ids, labels) * scale, {1}), tensor_of(reference, "loss")) <= tolerance);

        LoraConfig config;
        config.init_lora_weights = LoraInit::random;
        config.lora_alpha = 16;
        Gpt2<float> exact = load_gpt2<float>(fixture(name));
        attach_lora<bf16, Cpu>(model, config, 1);
        attach_lora<float, Cpu>(exact, config, 1);
        const Gradients found = backward(model.loss(ids, labels)), expected = backward(exact.loss(ids, labels));
        const auto rounded = trainable_tensors<bf16, Cpu>(model), precise = trainable_tensors<float, Cpu>(exact);
        REQUIRE(rounded.size() == precise.size());
        // The way back doubles the roundings. ReLU's slope jumps: where rounding turns a sign, a whole term is lost,
        // and PyTorch's autocast is off by 0.12 for the same model.
        const bool jumps = model.config.activation_function == Activation::relu;
        for (std::size_t i = 0; i < rounded.size(); ++i) {
            CAPTURE(rounded[i].name);
            CHECK(relative_error(found[rounded[i].values], expected[precise[i].values]) <=
                  (jumps ? 0.2 : 2 * tolerance));
        }
    }
}
