// GPT-2 with random weights: a LoRA step (on c_attn and c_proj), decoding with a cache, and what comes before the first
// step: loading 124M parameters and attaching adapters to them.
#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <unistd.h>

#include "lowrank/adapters/attach.hpp"
#include "lowrank/generate/cached_text.hpp"
#include "lowrank/models/gpt2_init.hpp"
#include "lowrank/optim/adamw.hpp"
#include "lowrank/optim/parameter_group.hpp"
#include "measure.hpp"

namespace {

using namespace lowrank;

/// A GPT-2 of so many layers, so wide, with heads of 64 and without dropout. The last one is kept, for the next
/// benchmark often wants the same.
Gpt2<float>& random_gpt2(std::int64_t layers = 12, std::int64_t width = 768) {
    static std::optional<Gpt2<float>> last;
    if (!last || last->config.n_layer != layers || last->config.n_embd != width) {
        last.reset(); // before the next one takes memory
        Gpt2Config config;
        config.n_layer = layers;
        config.n_embd = width;
        config.n_head = width / 64;
        config.n_inner = 4 * width;
        last = new_gpt2<float>(config, 0);
        last->set_base_dropout(0, 0, 0);
    }
    return *last;
}

template <class T>
void attach(Gpt2<T>& model, std::int64_t r, bool dora = false) {
    LoraConfig lora;
    lora.r = r;
    lora.lora_alpha = 2 * static_cast<double>(r);
    lora.use_dora = dora;
    lora.target_modules = std::vector<std::string>{"c_attn", "c_proj"};
    attach_lora<T, Cpu>(model, lora, 0);
}

/// Counts 4ND for the frozen matrices and the head, forward and input gradient, and causal attention.
template <class T>
void lora_step(benchmark::State& state, Gpt2<T>& model) {
    const std::int64_t batch = state.range(0), length = state.range(1);
    attach(model, state.range(2));
    AdamW<float> optimizer({trained_group<T>(model)}, {.learning_rate = 1e-4});
    std::vector<std::int32_t> some;
    for (std::int64_t i = 0; i < batch * length; ++i) {
        some.push_back(static_cast<std::int32_t>(i * 7919 % 50257));
    }
    const auto ids = Tensor<std::int32_t>::from(some, {batch, length});
    const auto layers = static_cast<double>(model.config.n_layer), d = static_cast<double>(model.config.n_embd);
    const double matrices = 12 * layers * d * d + 50257 * d;
    const double attention = layers * 7 * d * static_cast<double>(batch * length * length);
    ForwardContext<Cpu> context;
    context.training = true;
    bench::compute_bound<T>(state, 4 * static_cast<double>(batch * length) * matrices + attention,
                            [&] { optimizer.step(backward(model.loss(ids, ids, context))); });
}

/// One token for each of some texts with 128 tokens before it: the weights are read once.
void decode(benchmark::State& state) {
    Gpt2<float>& model = random_gpt2();
    attach(model, 8);
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
    state.counters["tokens/s"] = static_cast<double>(rows.size()) / state.counters["best_s"];
}

/// A directory with the files of GPT-2 124M, removed when the program ends. They stay in the page cache: loading is
/// warm.
class Files {
  public:
    Files() { save_gpt2(random_gpt2(), path); }
    Files(const Files&) = delete;
    Files& operator=(const Files&) = delete;
    ~Files() {
        std::error_code ignored;
        std::filesystem::remove_all(path, ignored);
    }

    const std::filesystem::path path =
        std::filesystem::temp_directory_path() / concat("lowrank_bench_", static_cast<long>(getpid()));
};
const std::filesystem::path& model_files() {
    static const Files files;
    return files.path;
}

void load_124m(benchmark::State& state) {
    bench::best_seconds(state, [] { load_gpt2<float>(model_files()); });
}

void attach_124m(benchmark::State& state, bool dora) {
    Gpt2<float> model = load_gpt2<float>(model_files());
    bench::best_seconds(state, [&] { attach(model, 8, dora); });
}

void lora_step(benchmark::State& state) {
    lora_step(state, random_gpt2(state.range(3), state.range(4)));
}

/// Of 124M, with its matrices in bf16.
void lora_step_bf16(benchmark::State& state) {
    auto model = load_gpt2<bf16>(model_files(), {.convert_wider = true, .nf4 = {}});
    model.set_base_dropout(0, 0, 0);
    lora_step(state, model);
}

BENCHMARK(load_124m)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(attach_124m, lora, false)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(attach_124m, dora, true)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(decode)->ArgName("texts")->Arg(1)->Arg(4)->Arg(8)->UseManualTime()->Unit(benchmark::kMillisecond);

// The two shapes that are compared with PyTorch, then one number after the other changes. The model changes last.
BENCHMARK(lora_step)
    ->ArgNames({"batch", "length", "r", "layers", "width"})
    ->Args({1, 1024, 8, 12, 768})
    ->Args({4, 256, 8, 12, 768})
    ->ArgsProduct({{1}, {64, 128, 256, 512}, {8}, {12}, {768}})
    ->ArgsProduct({{2, 4, 8}, {128}, {8}, {12}, {768}})
    ->ArgsProduct({{1}, {512}, {1, 4, 16, 32, 64, 128}, {12}, {768}})
    ->ArgsProduct({{1}, {512}, {8}, {2, 4, 8, 16, 24}, {768}})
    ->ArgsProduct({{1}, {512}, {8}, {12}, {256, 512, 1024, 1280}})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(lora_step_bf16)
    ->ArgNames({"batch", "length", "r"})
    ->Args({1, 1024, 8})
    ->Args({4, 256, 8})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

} // namespace
