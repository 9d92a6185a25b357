// Trained GPT-2s from elsewhere do here what they were trained to do, with the activations that their makers recorded.

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lowrank/generate/generate.hpp"
#include "lowrank/io/read_text.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"
#include "lowrank/ops/matmul.hpp"
#include "lowrank/ops/softmax.hpp"
#include "lowrank/text/load_tokenizer.hpp"
#include "models_testing.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

/// The directory of a model; empty, with a message, where the data is absent.
std::filesystem::path model_directory(const std::string& name) {
    const std::filesystem::path path = std::filesystem::path(LOWRANK_SHARED_DATA) / "models" / name;
    if (std::filesystem::exists(path)) {
        return path;
    }
    MESSAGE("skipped: found no " << path.string());
    return {};
}

std::vector<std::int32_t> greedy(const Gpt2<float>& model, const std::vector<std::int32_t>& prompt,
                                 std::int64_t count) {
    SamplerOptions options;
    options.greedy = true;
    Sampler sampler(options);
    std::vector<std::int32_t> made;
    generate<float, Cpu>(model, prompt, count, {}, sampler, [&](std::int32_t id) {
        made.push_back(id);
        return true;
    });
    return made;
}

/// [batch, length, heads · dim] as [batch, heads, length, dim].
Tensor<float> by_head(const Tensor<float>& x, std::int64_t heads) {
    return permute(reshape(x, {x.size(0), x.size(1), heads, x.size(2) / heads}), {0, 2, 1, 3});
}

/// Scores with -∞ where a query would look ahead.
Tensor<float> causal(const Tensor<float>& scores) {
    const std::int64_t length = scores.size(-1);
    std::vector<float> mask;
    for (std::int64_t i = 0; i < length * length; ++i) {
        mask.push_back(i % length > i / length ? -INFINITY : 0.0f);
    }
    return scores + Tensor<float>::from(mask, {length, length});
}

} // namespace

TEST_CASE("gpt-nano-sort: every activation that its maker recorded") {
    const auto directory = model_directory("gpt-nano-sort");
    if (directory.empty()) {
        return;
    }
    const NoGrad no_grad;
    const Gpt2<float> model = load_gpt2<float>(directory);
    const auto reference = SafetensorsFile::open((directory / "reference.safetensors").string());
    std::size_t compared = 1; // idx
    const auto check = [&](const std::string& key, const Tensor<float>& found) {
        CAPTURE(key);
        CHECK(relative_error(found, tensor_of(reference, key)) <= 2e-6);
        ++compared;
    };
    const Tensor<std::int32_t> ids = ids_of(reference, "idx");
    const auto& t = model.transformer;
    std::vector<std::int32_t> positions(11);
    std::iota(positions.begin(), positions.end(), 0);
    const Tensor<float> token = t.wte.forward(ids),
                        position = t.wpe.forward(Tensor<std::int32_t>::from(positions, {1, 11}));
    Tensor<float> x = token + position;
    check("tok_emb", token);
    check("pos_emb", position);
    check("x", x);

    const Gpt2Block<float, Cpu>& first = t.h[0]; // the insides that were recorded are those of the first block
    const std::int64_t heads = model.config.n_head;
    const Tensor<float> ln1 = first.ln_1.forward(x), qkv = first.attn.c_attn.forward(ln1, {});
    const std::vector<Tensor<float>> parts = split(qkv, {48, 48, 48}, 2);
    const Tensor<float> q = by_head(parts[0], heads), k = by_head(parts[1], heads), v = by_head(parts[2], heads);
    const Tensor<float> scores = causal(matmul(q, transpose(k)) * first.attn.scale), probabilities = softmax(scores);
    check("ln1", ln1);
    check("qkv", qkv);
    check("q", q);
    check("k", k);
    check("v", v);
    check("att", scores);
    check("attSm", probabilities);
    AttentionOptions<Cpu> options;
    options.scale = first.attn.scale;
    const Tensor<float> y = fused_attention(qkv, heads, heads, options), projected = first.attn.c_proj.forward(y, {});
    check("y", y);
    check("y", reshape(permute(matmul(probabilities, v), {0, 2, 1, 3}), y.shape()));
    check("yProj", projected);
    const Tensor<float> h = x + projected;
    check("attnResid", h);
    check("attnResid", first.attn.forward(ln1, x, {}));
    const Tensor<float> ln2 = first.ln_2.forward(h), fc = first.mlp.c_fc.forward(ln2, {});
    const Tensor<float> activated = gelu(fc, GeluKind::tanh), mlp = first.mlp.c_proj.forward(activated, {});
    check("ln2", ln2);
    check("fc", fc);
    check("gelu", activated);
    check("mlp", mlp);
    check("mlpResid", h + mlp);

    for (std::size_t i = 0; i < t.h.size(); ++i) {
        x = t.h[i].forward(x, {});
        check("block" + std::to_string(i), x);
    }
    const Tensor<float> final_states = model.hidden(ids), logits = model.logits(final_states);
    check("ln_f", final_states);
    check("lm_head", logits);
    check("probs", softmax(logits));
    CHECK(compared == reference.keys().size() + 2); // y and attnResid twice
}

TEST_CASE("gpt-nano-sort sorts every word of six letters") {
    const auto directory = model_directory("gpt-nano-sort");
    if (directory.empty()) {
        return;
    }
    const Gpt2<float> model = load_gpt2<float>(directory);
    int wrong = 0;
    for (int word = 0; word < 729; ++word) {
        std::vector<std::int32_t> letters;
        for (int rest = word; letters.size() < 6; rest /= 3) {
            letters.push_back(rest % 3);
        }
        std::vector<std::int32_t> sorted = letters;
        std::sort(sorted.begin(), sorted.end());
        wrong += greedy(model, letters, 6) != sorted;
    }
    CHECK(wrong == 0);
}

TEST_CASE("slm4096 knows its corpus by heart") {
    const auto directory = model_directory("slm4096");
    if (directory.empty()) {
        return;
    }
    const Gpt2<float> model = load_gpt2<float>(directory);
    const Tokenizer tokenizer = Tokenizer::load(directory);
    const std::string corpus = read_text(directory / "corpus.txt");
    const std::vector<std::int32_t> ids = tokenizer.encode(corpus);
    REQUIRE(ids.size() == 4096);

    const std::int64_t window = 128, step = 16, rows = (4096 - window) / step + 1;
    std::vector<std::int32_t> windows;
    for (std::int64_t row = 0; row < rows; ++row) {
        windows.insert(windows.end(), ids.begin() + row * step, ids.begin() + row * step + window);
    }
    const auto batch = Tensor<std::int32_t>::from(windows, {rows, window});
    const NoGrad no_grad;
    const double loss = static_cast<double>(model.loss(batch, batch).item()) / static_cast<double>(rows * (window - 1));
    CHECK(std::abs(loss - 0.06832666) <= 1e-6); // Transformers in double

    for (const std::size_t at : {std::size_t(0), std::size_t(1000)}) {
        const std::string prompt = corpus.substr(at, 20);
        const std::vector<std::int32_t> made = greedy(model, tokenizer.encode(prompt), window - 20);
        CHECK(prompt + tokenizer.decode(made) == corpus.substr(at, static_cast<std::size_t>(window)));
    }
}
