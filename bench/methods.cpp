// What methods cost: steps of GPT-2 124M's shape on 1 × 1,024 tokens, method by method by turns, so that a change of
// the machine's speed meets all of them. Counters are the best times, as parts of LoRA's. Of the two steps in a turn
// the second counts: the first finds memory of the sizes that the contender before it used, as no step of a training
// does.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/adapters/attach.hpp"
#include "lowrank/models/gpt2_init.hpp"
#include "lowrank/optim/adamw.hpp"
#include "lowrank/optim/parameter_group.hpp"
#include "lowrank/tensor/nf4_weight.hpp"
#include "measure.hpp"

namespace {

using namespace lowrank;

template <class T>
struct Contender {
    std::string name;
    Gpt2<T> model; // its frozen matrices are those of the others
    AdamW<float> optimizer;
    double best = std::numeric_limits<double>::infinity();

    Contender(const char* of, Gpt2<T> ready)
        : name(of),
          model(std::move(ready)),
          optimizer({trained_group<T>(model)}, {.learning_rate = 1e-4}) {}
};
template <class T>
using Contenders = std::vector<std::unique_ptr<Contender<T>>>;

template <class T, class Config>
void add(Contenders<T>& contenders, const char* name, Gpt2<T> model, Config config) {
    if (!config.target_modules) {
        config.target_modules = std::vector<std::string>{"c_attn", "c_proj"};
    }
    attach_adapter<T, Cpu>(model, config, 0);
    contenders.push_back(std::make_unique<Contender<T>>(name, std::move(model)));
}

/// Nothing but the forward pass and the gradient of what the first layer reads.
template <class T>
void add_input_gradient(Contenders<T>& contenders, Gpt2<T> model) {
    freeze<T, Cpu>(model);
    set_trainable(model.transformer.h[0].ln_1.bias, true);
    contenders.push_back(std::make_unique<Contender<T>>("base", std::move(model)));
}

/// The first of the contenders is the measure of the others.
template <class T>
void by_turns(benchmark::State& state, const Contenders<T>& contenders) {
    using Clock = std::chrono::steady_clock;
    std::vector<std::int32_t> some;
    for (std::int32_t i = 0; i < 1024; ++i) {
        some.push_back(i * 7919 % 50257);
    }
    const auto ids = Tensor<std::int32_t>::from(some, {1, 1024});
    ForwardContext<Cpu> context;
    context.training = true;
    for (auto _ : state) {
        double all = 0;
        for (const auto& contender : contenders) {
            const auto step = [&] { contender->optimizer.step(backward(contender->model.loss(ids, ids, context))); };
            step();
            const auto start = Clock::now();
            step();
            const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
            contender->best = std::min(contender->best, seconds);
            all += seconds;
        }
        state.SetIterationTime(all);
    }
    state.counters["lora_s"] = contenders.front()->best;
    for (const auto& contender : contenders) {
        state.counters[contender->name] = contender->best / contenders.front()->best;
    }
}

LoraConfig lora_config() {
    LoraConfig lora;
    lora.r = 8;
    lora.lora_alpha = 16;
    return lora;
}

/// GPT-2 124M's shape without dropout, its matrices stored as T.
template <class T>
Gpt2<T> frozen_base() {
    Gpt2<T> model = new_gpt2<T>({}, 0);
    model.set_base_dropout(0, 0, 0);
    for_each<WeightSlot<float, Cpu>>(model, [](const std::string&, WeightSlot<float, Cpu>& slot) {
        if (slot.defined()) { // a tied head has none of its own
            slot = std::make_shared<DenseWeight<T, Cpu>>(cast<T>(slot.values().detach()), slot.orientation());
        }
    });
    return model;
}

void methods(benchmark::State& state) {
    const Gpt2<float> base = frozen_base<float>();
    LoraConfig dora = lora_config();
    dora.use_dora = true;
    Ia3Config ia3; // PEFT's own choice for GPT-2
    ia3.target_modules = std::vector<std::string>{"c_attn", "mlp.c_proj"};
    ia3.feedforward_modules = std::vector<std::string>{"mlp.c_proj"};
    Contenders<float> contenders;
    add(contenders, "lora", base, lora_config());
    add_input_gradient(contenders, base);
    add(contenders, "dora", base, dora);
    VeraConfig vera; // at LoRA's rank, and at the one that PEFT starts from
    vera.r = 8;
    add(contenders, "vera_r8", base, vera);
    add(contenders, "vera_r256", base, VeraConfig());
    add(contenders, "ia3", base, ia3);
    by_turns(state, contenders);
}

void qlora(benchmark::State& state) {
    const Gpt2<bf16> base = frozen_base<bf16>();
    Gpt2<bf16> quantized = base;
    for_each<Linear<bf16, Cpu>>(quantized, [](const std::string&, Linear<bf16, Cpu>& layer) {
        layer.weight = Nf4Weight<Cpu>::quantized(*layer.weight.frozen(), {.double_quantization = true});
    });
    Contenders<bf16> contenders;
    add(contenders, "lora", base, lora_config());
    add(contenders, "qlora", quantized, lora_config());
    by_turns(state, contenders);
}

BENCHMARK(methods)->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(5);
BENCHMARK(qlora)->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(5);

} // namespace
