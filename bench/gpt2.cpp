// GPT-2 124M with random weights: a LoRA step (r = 8 on c_attn and c_proj), and decoding with a cache.
#include "lowrank/adapters/attach.hpp"
#include "lowrank/generate/cached_text.hpp"
#include "lowrank/models/gpt2_init.hpp"
#include "lowrank/optim/adamw.hpp"
#include "lowrank/optim/parameter_group.hpp"
#include "measure.hpp"

namespace {

using namespace lowrank;

Gpt2<float>& model_124m() {
    static Gpt2<float> model = [] {
        Gpt2<float> made = new_gpt2<float>({}, 0);
        made.set_base_dropout(0, 0, 0);
        LoraConfig lora;
        lora.r = 8;
        lora.lora_alpha = 16;
        lora.target_modules = std::vector<std::string>{"c_attn", "c_proj"};
        attach_lora<float, Cpu>(made, lora, 0);
        return made;
    }();
    return model;
}

Tensor<std::int32_t> tokens(std::int64_t batch, std::int64_t length) {
    std::vector<std::int32_t> ids;
    for (std::int64_t i = 0; i < batch * length; ++i) {
        ids.push_back(static_cast<std::int32_t>(i * 7919 % 50257));
    }
    return Tensor<std::int32_t>::from(ids, {batch, length});
}

/// Counts 4ND for the frozen matrices and the head, forward and input gradient, and causal attention.
void lora_step(benchmark::State& state) {
    const std::int64_t batch = state.range(0), length = state.range(1);
    Gpt2<float>& model = model_124m();
    AdamW<float> optimizer({trained_group<float>(model)}, {.learning_rate = 1e-4});
    const auto ids = tokens(batch, length);
    const auto n = static_cast<double>(batch * length), d = 768.0;
    const double parameters = 12 * 12 * d * d + 50257 * d;
    const double attention = 12 * 7 * d * static_cast<double>(batch * length * length);
    ForwardContext<Cpu> context;
    context.training = true;
    bench::compute_bound(state, 4 * n * parameters + attention,
                         [&] { optimizer.step(backward(model.loss(ids, ids, context))); });
}

/// One token for each of some texts with 128 tokens before it: the weights are read once.
void decode(benchmark::State& state) {
    const Gpt2<float>& model = model_124m();
    std::vector<CachedText<float>> texts;
    std::vector<CachedText<float>*> rows;
    for (std::int64_t i = 0; i < state.range(0); ++i) {
        texts.emplace_back(model, 129);
    }
    std::vector<std::int32_t> past(128, 11);
    for (CachedText<float>& text : texts) {
        text.assign(past);
        CachedText<float>::logits(model, std::array{&text});
        rows.push_back(&text);
    }
    past.push_back(12);
    bench::memory_bound(state, 4 * (12 * 12 * 768.0 * 768 + 50257 * 768), [&] {
        for (CachedText<float>& text : texts) {
            text.assign(past);
        }
        CachedText<float>::logits(model, rows);
    });
}

BENCHMARK(lora_step)->Args({1, 1024})->Args({4, 256})->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(decode)->Arg(1)->Arg(8)->UseManualTime()->Unit(benchmark::kMillisecond);

} // namespace
