// Generation: with the keys and values of the past kept, the same as without; and how it ends.

#include <algorithm>
#include <array>
#include <limits>

#include "io/temporary_directory.hpp"
#include "lowrank/generate/generate.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"
#include "models_testing.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

using Ids = std::vector<std::int32_t>;

Tensor<std::int32_t> one_row(const Ids& ids) {
    return Tensor<std::int32_t>::from(ids, {1, static_cast<std::int64_t>(ids.size())});
}

/// The logits of the last position, computed from the start.
Tensor<float> uncached_logits(const Gpt2<float>& model, const Ids& ids) {
    const Tensor<float> states = model.hidden(one_row(ids));
    return model.logits(slice(states, 1, states.size(1) - 1));
}

struct Result {
    Ids ids;
    StopReason reason;
};

Result run(const Gpt2<float>& model, const Ids& prompt, std::int64_t count, const SamplerOptions& options,
           std::optional<std::int32_t> eos = {}, std::size_t stop_after = 1000, std::uint32_t stream = 0) {
    Sampler sampler(options, stream);
    Result result{};
    result.reason = generate<float, Cpu>(model, prompt, count, eos, sampler, [&](std::int32_t id) {
        result.ids.push_back(id);
        return result.ids.size() < stop_after;
    });
    return result;
}

SamplerOptions greedy() {
    SamplerOptions options;
    options.greedy = true;
    return options;
}

const Ids prompt{5, 80, 3, 41, 7};

} // namespace

TEST_CASE("cached logits are those without a cache, token by token and in pieces") {
    const NoGrad no_grad;
    for (const char* name : {"gpt2_tied", "gpt2_untied", "gpt2_inverse_layer"}) {
        CAPTURE(name);
        const Gpt2<float> model = load_gpt2<float>(fixture(name));
        auto caches = model.make_caches(25);
        Ids past, input = prompt;
        for (const std::size_t step : {1, 1, 3, 1, 7, 1, 1, 5}) { // how many tokens the next piece has
            past.insert(past.end(), input.begin(), input.end());
            const Tensor<float> states = model.hidden(one_row(input), {}, std::array{&caches});
            const Tensor<float> logits = model.logits(slice(states, 1, states.size(1) - 1));
            CHECK(relative_error(logits, uncached_logits(model, past)) <= 1e-6);
            CHECK(caches.front().length() == static_cast<std::int64_t>(past.size()));
            input.clear();
            for (std::size_t i = 0; i < step; ++i) {
                input.push_back(static_cast<std::int32_t>((past.size() * 31 + i * 17) % 96));
            }
        }
    }
}

TEST_CASE("rows of a batch have pasts of their own, and caches can forget") {
    const NoGrad no_grad;
    const Gpt2<float> model = load_gpt2<float>(fixture("gpt2_tied"));
    auto first = model.make_caches(8), second = model.make_caches(9);
    const auto both = [&](const Ids& ids) {
        return model.hidden(Tensor<std::int32_t>::from(ids, {2, std::ssize(ids) / 2}), {}, std::array{&first, &second});
    };
    model.hidden(one_row({1, 2, 3, 90}), {}, std::array{&first});
    model.hidden(one_row({4, 5, 6, 91, 92}), {}, std::array{&second});
    for (auto& cache : first) {
        cache.truncate(3);
    }
    const Tensor<float> logits = model.logits(slice(both({7, 8, 9, 10}), 1, 1));
    CHECK(slice(logits, 0, 0, 1).to_vector() == uncached_logits(model, {1, 2, 3, 7, 8}).to_vector());
    CHECK(slice(logits, 0, 1, 2).to_vector() == uncached_logits(model, {4, 5, 6, 91, 92, 9, 10}).to_vector());

    const std::string message = message_of<ShapeError>([&] { both(Ids(8)); }); // 5 + 4 > 8
    CHECK(message.find("[1, 8, 4, 8]") != std::string::npos);
    CHECK_THROWS_AS(model.hidden(Tensor<std::int32_t>::zeros({1, 1}), {}, std::array{&first, &second}), ShapeError);
}

TEST_CASE("greedy generation chooses what the logits without a cache choose") {
    for (const std::string& name : fixtures_with("gpt2_", "reference.safetensors")) {
        CAPTURE(name);
        const Gpt2<float> model = load_gpt2<float>(fixture(name));
        const Result result = run(model, prompt, 12, greedy());
        CHECK(result.reason == StopReason::max_new_tokens);
        REQUIRE(result.ids.size() == 12);
        const NoGrad no_grad;
        Ids past = prompt;
        for (const std::int32_t id : result.ids) {
            const std::vector<float> logits = uncached_logits(model, past).to_vector();
            CHECK(id == std::max_element(logits.begin(), logits.end()) - logits.begin());
            past.push_back(id);
        }
    }
}

TEST_CASE("the same seed generates the same tokens") {
    const Gpt2<float> model = load_gpt2<float>(fixture("gpt2_tied"));
    SamplerOptions options;
    options.temperature = 2;
    options.repetition_penalty = 1.2;
    options.seed = 11;
    const Result first = run(model, prompt, 20, options);
    CHECK(run(model, prompt, 20, options).ids == first.ids);
    options.seed = 12;
    CHECK(run(model, prompt, 20, options).ids != first.ids);
}

TEST_CASE("the texts of a batch are those that the prompts get alone") {
    const std::vector<Ids> prompts{prompt, {1}, {7, 9, 11, 2, 4, 5, 60, 61, 2}, {95}, Ids(30, 3), {33, 1, 8}, {2, 2}};
    for (const std::string name : {"gpt2_tied", "gpt2_inverse_layer"}) {
        const Gpt2<float> model = load_gpt2<float>(fixture(name));
        for (const bool is_greedy : {true, false}) {
            BatchOptions options;
            options.max_new_tokens = 20;
            options.sampler = is_greedy ? greedy() : SamplerOptions{.temperature = 1.5, .top_k = 50, .seed = 3};
            options.eos = run(model, {1}, 20, options.sampler).ids[6]; // ends some of them
            std::vector<Result> alone;
            for (std::size_t i = 0; i < prompts.size(); ++i) {
                alone.push_back(run(model, prompts[i], 20, options.sampler, options.eos, i == 2 ? 4 : 1000,
                                    static_cast<std::uint32_t>(i)));
            }
            for (const std::size_t batch_size : {1, 2, 3, 50}) {
                CAPTURE(name);
                CAPTURE(is_greedy);
                CAPTURE(batch_size);
                options.batch_size = batch_size;
                std::vector<Result> together(prompts.size());
                std::vector<bool> has_ended(prompts.size());
                generate_batch<float, Cpu>(
                    model, prompts, options,
                    [&](std::size_t i, std::int32_t id) {
                        CHECK_FALSE(has_ended[i]);
                        together[i].ids.push_back(id);
                        return i != 2 || together[i].ids.size() < 4;
                    },
                    [&](std::size_t i, StopReason reason) {
                        CHECK_FALSE(has_ended[i]);
                        has_ended[i] = true;
                        together[i].reason = reason;
                        return true;
                    });
                for (std::size_t i = 0; i < prompts.size(); ++i) {
                    CAPTURE(i);
                    CHECK(has_ended[i]);
                    CHECK(together[i].ids == alone[i].ids);
                    CHECK(together[i].reason == alone[i].reason);
                }
            }
        }
    }
}

TEST_CASE("a batch ends when its caller wants, and refuses what it cannot do before it begins") {
    const Gpt2<float> model = load_gpt2<float>(fixture("gpt2_tied"));
    std::size_t tokens = 0, ends = 0;
    const auto count_tokens = [&](std::size_t, std::int32_t) { return ++tokens > 0; };
    const auto count_ends = [&](std::size_t, StopReason) { return ++ends < 2; };
    const auto run_batch = [&](const std::vector<Ids>& prompts, const BatchOptions& options) {
        tokens = ends = 0;
        generate_batch<float, Cpu>(model, prompts, options, count_tokens, count_ends);
    };
    const BatchOptions two{.max_new_tokens = 3, .sampler = greedy(), .batch_size = 2};
    run_batch({{1}, {2}, {3}, {4}}, two);
    CHECK(ends == 2);
    CHECK(tokens == 6);
    BatchOptions nothing = two;
    nothing.max_new_tokens = 0;
    run_batch({{1}, {2}}, nothing);
    CHECK(ends == 2);
    CHECK(tokens == 0);
    run_batch({}, two);
    CHECK(ends == 0);

    CHECK(message_of<ShapeError>([&] { run_batch({{1}, Ids(33, 1)}, two); }).find("33 tokens") != std::string::npos);
    CHECK(tokens == 0);
    BatchOptions none = two;
    none.batch_size = 0;
    CHECK(message_of<OptionError>([&] { run_batch({{1}}, none); }).find("batch_size") != std::string::npos);
}

TEST_CASE("a text keeps what the model has seen of it") {
    const Gpt2<float> model = load_gpt2<float>(fixture("gpt2_tied"));
    const auto logits = [&](CachedText<float>& text) { return CachedText<float>::logits(model, std::array{&text}); };
    CachedText<float> text(model, 16);
    text.assign({5, 6, 7, 8});
    CHECK(text.seen() == 0);
    CHECK(logits(text) == uncached_logits(model, {5, 6, 7, 8}).to_vector());
    text.push(9);
    CHECK(text.seen() == 4);
    CHECK(logits(text) == uncached_logits(model, {5, 6, 7, 8, 9}).to_vector());
    text.assign({5, 6, 7, 20, 21});
    CHECK(text.seen() == 3);
    CHECK(logits(text) == uncached_logits(model, {5, 6, 7, 20, 21}).to_vector());
    text.assign({5, 6}); // its last token is computed again
    CHECK(text.seen() == 1);
    CHECK(logits(text) == uncached_logits(model, {5, 6}).to_vector());
    CHECK_THROWS_AS(logits(text), ShapeError); // nothing new
    CachedText<float> other(model, 16);
    text.push(3);
    other.assign({1, 2});
    CHECK_THROWS_AS(CachedText<float>::logits(model, std::array{&text, &other}), ShapeError);
}

TEST_CASE("how generation ends") {
    const Gpt2<float> model = load_gpt2<float>(fixture("gpt2_tied")); // 32 positions
    const Result twelve = run(model, prompt, 12, greedy());

    const std::int32_t eos = twelve.ids[7];
    const auto first = std::find(twelve.ids.begin(), twelve.ids.end(), eos);
    const Result stopped = run(model, prompt, 12, greedy(), eos);
    CHECK(stopped.reason == StopReason::eos);
    CHECK(stopped.ids == Ids(twelve.ids.begin(), first));

    const Result called = run(model, prompt, 12, greedy(), {}, 4);
    CHECK(called.reason == StopReason::callback);
    CHECK(called.ids == Ids(twelve.ids.begin(), twelve.ids.begin() + 4));

    // The last position still predicts a token: 5 of the prompt, 27 more positions, and one token that needs none.
    const Result full = run(model, prompt, std::numeric_limits<std::int64_t>::max(), greedy());
    CHECK(full.reason == StopReason::n_positions);
    CHECK(full.ids.size() == 28);
    CHECK(run(model, prompt, 28, greedy()).reason == StopReason::max_new_tokens);
    CHECK(run(model, Ids(32, 1), 5, greedy()).ids.size() == 1);

    for (const std::int64_t none : {0, -3}) {
        const Result nothing = run(model, prompt, none, greedy());
        CHECK(nothing.reason == StopReason::max_new_tokens);
        CHECK(nothing.ids.empty());
    }
}

TEST_CASE("prompts that cannot be continued are refused") {
    const Gpt2<float> model = load_gpt2<float>(fixture("gpt2_tied"));
    const auto message = [&](const Ids& ids) { return message_of<ShapeError>([&] { run(model, ids, 3, greedy()); }); };
    CHECK(message({}).find("0 tokens") != std::string::npos);
    CHECK(message(Ids(33, 1)).find("33 tokens") != std::string::npos);
    CHECK(message({1, 96}).find("id 96 at position 1") != std::string::npos);
}
