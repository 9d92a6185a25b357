// GPT-2s that Transformers saved compute here what they compute there: hidden states, logits, loss, every gradient.

#include <set>

#include "lowrank/models/gpt2_checkpoint.hpp"
#include "models_testing.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

constexpr double tolerance = 1e-5;

/// The embeddings' sum and the outputs of the blocks, the last one after ln_f: Transformers' hidden_states.
std::vector<Tensor<float>> hidden_states(const Gpt2<float>& model, const Tensor<std::int32_t>& ids) {
    std::vector<std::int32_t> positions;
    for (std::int64_t i = 0; i < ids.numel(); ++i) {
        positions.push_back(static_cast<std::int32_t>(i % ids.size(1)));
    }
    const auto& t = model.transformer;
    std::vector<Tensor<float>> states{t.wte.forward(ids) +
                                      t.wpe.forward(Tensor<std::int32_t>::from(positions, ids.shape()))};
    for (const auto& block : t.h) {
        states.push_back(block.forward(states.back(), {}));
    }
    states.back() = t.ln_f.forward(states.back());
    return states;
}

void check_forward(const Gpt2<float>& model, const SafetensorsFile& reference, const Tensor<std::int32_t>& ids) {
    const NoGrad no_grad;
    const std::vector<Tensor<float>> states = hidden_states(model, ids);
    CHECK(reference.find("hidden." + std::to_string(states.size())) == nullptr);
    for (std::size_t i = 0; i < states.size(); ++i) {
        CAPTURE(i);
        CHECK(relative_error(states[i], tensor_of(reference, "hidden." + std::to_string(i))) <= tolerance);
    }
    CHECK(relative_error(model.logits(model.hidden(ids)), tensor_of(reference, "logits")) <= tolerance);
}

void check_gradients(Gpt2<float>& model, const SafetensorsFile& reference, const Tensor<std::int32_t>& ids) {
    const Tensor<std::int32_t> labels = ids_of(reference, "labels");
    for_each_parameter(model, [](const std::string&, auto& field) { set_trainable(field, true); });
    const Tensor<float> loss = model.loss(ids, labels) * (1.0 / static_cast<double>(supervised_count(labels)));
    CHECK(relative_error(reshape(loss, {1}), tensor_of(reference, "loss")) <= tolerance);
    const Gradients gradients = backward(loss);
    std::set<std::string> compared;
    for_each_parameter(model, [&](const std::string& path, auto& field) {
        if (!field.defined()) {
            return; // GPT-2's head has no bias
        }
        const std::string key = "grad." + path;
        CAPTURE(key);
        CHECK(relative_error(gradients[trained_values(field)], tensor_of(reference, key)) <= tolerance);
        compared.insert(key);
    });
    for (const std::string& key : reference.keys()) {
        CHECK_MESSAGE((!key.starts_with("grad.") || compared.contains(key)), key << " is a parameter there, not here");
    }
}

} // namespace

TEST_CASE("GPT-2s that Transformers saved: hidden states, logits, loss and gradients") {
    for (const std::string& name : fixtures_with("gpt2_", "reference.safetensors")) {
        CAPTURE(name);
        Gpt2<float> model = load_gpt2<float>(fixture(name));
        const auto reference = SafetensorsFile::open((fixture(name) / "reference.safetensors").string());
        const Tensor<std::int32_t> ids = ids_of(reference, "input_ids");
        check_forward(model, reference, ids);
        check_gradients(model, reference, ids);
    }
}

TEST_CASE("what config.json does not say, or says beside the point") {
    const Gpt2Config config = read_gpt2_config(fixture("gpt2_noprefix"));
    CHECK(config.n_inner == 4 * config.n_embd);
    CHECK(config.tie_word_embeddings);
    CHECK(config.attn_pdrop == 0.1);
    CHECK(config.eos_token_id == 0);
    CHECK(read_gpt2_config(fixture("gpt2_inner")).n_inner == 56);
}
