// Modules of one's own: fields, parameters, files, adapters, and that the blocks of nn/ train.
#include <doctest/doctest.h>

#include "io/temporary_directory.hpp"
#include "lowrank/adapters/attach.hpp"
#include "lowrank/autograd/backward.hpp"
#include "lowrank/models/module_file.hpp"
#include "lowrank/nn/dropout.hpp"
#include "lowrank/nn/embedding.hpp"
#include "lowrank/nn/layer_norm.hpp"
#include "lowrank/nn/sequential.hpp"
#include "lowrank/nn/transformer_block.hpp"
#include "lowrank/ops/cross_entropy.hpp"
#include "lowrank/ops/reduce.hpp"
#include "lowrank/optim/adamw.hpp"

using namespace lowrank;

namespace {

/// A small decoder over 8 tokens.
struct Decoder {
    Embedding<float> tokens;
    std::vector<TransformerBlock<float>> blocks;
    LayerNorm<float> norm;
    Linear<float> head;

    explicit Decoder(std::uint64_t seed) {
        Rng rng(seed);
        tokens = Embedding<float>::random(8, 16, rng);
        blocks = {TransformerBlock<float>::random(16, 2, rng), TransformerBlock<float>::random(16, 4, rng)};
        norm = LayerNorm<float>::ones(16);
        head = Linear<float>::random(16, 8, rng);
    }

    template <class Visit>
    void fields(Visit&& visit) {
        visit("tokens", tokens);
        visit("blocks", blocks);
        visit("norm", norm);
        visit("head", head);
    }

    Tensor<float> forward(const Tensor<std::int32_t>& ids, const ForwardContext<Cpu>& context = {}) const {
        Tensor<float> x = tokens.forward(ids);
        for (const auto& block : blocks) {
            x = block.forward(x, context);
        }
        return reshape(head.forward(norm.forward(x), context), {ids.numel(), 8});
    }
};

// The task: each token is the one two before it.
const Tensor<std::int32_t> ids = Tensor<std::int32_t>::from({1, 4, 1, 4, 1, 4, 1, 4, 2, 7, 2, 7, 2, 7, 2, 7}, {2, 8});
const Tensor<std::int32_t> labels =
    Tensor<std::int32_t>::from({4, 1, 4, 1, 4, 1, 4, -100, 7, 2, 7, 2, 7, 2, 7, -100}, {16});

double train(Decoder& model, int steps) {
    AdamW<float> optimizer({ParameterGroup<float>(trained_parameters<float>(model))}, {.learning_rate = 0.01});
    double loss = 0;
    for (int step = 0; step < steps; ++step) {
        const Tensor<float> value = cross_entropy(model.forward(ids), labels);
        optimizer.step(backward(value));
        loss = value.item();
    }
    return loss;
}

} // namespace

TEST_CASE("a decoder of the library's blocks trains, is saved and loaded, and takes an adapter") {
    Decoder model(1);
    const double before = cross_entropy(model.forward(ids), labels).item();
    CHECK(before > 1.5);
    CHECK(train(model, 60) < 0.2);

    const TemporaryDirectory directory;
    const auto path = directory.path() / "model.safetensors";
    save_module<float>(model, path);
    Decoder other(2);
    CHECK(other.forward(ids).to_vector() != model.forward(ids).to_vector());
    load_module<float>(other, path);
    CHECK(other.forward(ids).to_vector() == model.forward(ids).to_vector());
    CHECK(trained_parameters<float>(other).size() == trained_parameters<float>(model).size());

    LoraConfig config;
    config.r = 2;
    config.target_modules = std::vector<std::string>{"q_proj", "fc1"};
    CHECK(attach_lora<float, Cpu>(other, config, 3) ==
          std::vector<std::string>{"blocks.0.attention.q_proj", "blocks.0.mlp.fc1", "blocks.1.attention.q_proj",
                                   "blocks.1.mlp.fc1"});
    CHECK(trained_parameters<float>(other).size() == 8);
    CHECK(other.forward(ids).to_vector() == model.forward(ids).to_vector()); // B is 0
    const double start = cross_entropy(other.forward(ids), labels).item();
    CHECK(train(other, 5) < start);
    const std::string table = parameter_table<float>(other);
    CHECK(table.find("blocks.1.mlp.fc1.lora_A.weight  [2, 16]  trained\n") != std::string::npos);
    CHECK(table.find("blocks.1.mlp.fc1.weight  [64, 16]  constant\n") != std::string::npos);
}

TEST_CASE("a file of another module is refused by the tensor's name") {
    Decoder model(1);
    const TemporaryDirectory directory;
    const auto path = directory.path() / "model.safetensors";
    save_module<float>(model.head, path);
    const auto refusal = [&](auto& module) {
        try {
            load_module<float>(module, path);
        } catch (const FileError& error) {
            return std::string(error.what());
        }
        return std::string();
    };
    CHECK(refusal(model).find("tokens.weight") != std::string::npos);
    Rng rng(1);
    auto narrow = Linear<float>::random(4, 8, rng);
    CHECK(refusal(narrow).find("[8, 16]") != std::string::npos);
    auto without_bias = Linear<float>::random(16, 8, rng, false);
    CHECK(refusal(without_bias).find("'bias' is unexpected") != std::string::npos);
}

TEST_CASE("sequential, dropout and mlp") {
    Rng rng(5);
    Sequential net(Mlp<float>::random(3, 8, 4, rng, Activation::relu), Dropout<float>{0.5, 7},
                   Linear<float>::random(4, 2, rng));
    std::vector<std::string> paths;
    for_each_parameter(net, [&](const std::string& path, const auto&) { paths.push_back(path); });
    CHECK(paths ==
          std::vector<std::string>{"0.fc1.weight", "0.fc1.bias", "0.fc2.weight", "0.fc2.bias", "2.weight", "2.bias"});
    const auto x = Tensor<float>::from({1, 2, 3, -1, 0, 1}, {2, 3});
    ForwardContext<Cpu> training;
    training.training = true;
    training.seed = Tensor<std::int64_t>::scalar(1);
    const auto plain = net.forward(x, ForwardContext<Cpu>()), dropped = net.forward(x, training);
    CHECK(plain.shape() == Shape{2, 2});
    CHECK(plain.to_vector() != dropped.to_vector());
    CHECK(dropped.to_vector() == net.forward(x, training).to_vector());
    CHECK_THROWS_AS(SelfAttention<float>::random(16, 3, 1, rng), OptionError);
    CHECK_THROWS_AS(for_each_parameter<double>(net, [](const std::string&, const auto&) {}), Error);
}

TEST_CASE("packed rows attend within their documents, at positions of their own") {
    Rng rng(9);
    const auto attention = SelfAttention<float>::random(8, 2, 1, rng);
    std::vector<float> values(5 * 8);
    for (float& value : values) {
        value = float(rng.normal());
    }
    const auto packed = Tensor<float>::from(values, {1, 5, 8});
    ForwardContext<Cpu> context;
    context.document_start = Tensor<std::int32_t>::from({0, 0, 2, 2, 2}, {1, 5});
    const auto together = attention.forward(packed, context).to_vector();
    const auto alone =
        attention.forward(Tensor<float>::from(std::span<const float>(values).subspan(16), {1, 3, 8}), {}).to_vector();
    for (std::size_t i = 0; i < alone.size(); ++i) {
        CHECK(together[16 + i] == doctest::Approx(alone[i]).epsilon(1e-5));
    }
}
