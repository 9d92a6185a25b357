// AdaLoRA: the penalty, the importance of triplets and their budget, and files, checkpoints and resumed runs of both.
// What PEFT computes, with and without an allocation, is in test_peft_parity.cpp and test_training_runs.cpp.

#include <functional>

#include "io/temporary_directory.hpp"
#include "lowrank/adapters/peft_files.hpp"
#include "lowrank/autograd/gradient_check.hpp"
#include "lowrank/data/load.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"
#include "lowrank/train/adalora_training.hpp"
#include "lowrank/train/trainer.hpp"
#include "models_testing.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

using Marks = std::vector<bool>;

Tensor<double> waves(const Shape& shape, double frequency) {
    std::vector<double> values(static_cast<std::size_t>(numel(shape)));
    for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = std::sin(frequency * static_cast<double>(i + 1));
    }
    return Tensor<double>::from(values, shape);
}

/// Adapters of 4 inputs and 3 outputs with two triplets, as a model would have them.
struct Bench {
    std::vector<AdaLoraAt<double, Cpu>> adapters;
    Gradients gradients;

    explicit Bench(const std::vector<std::vector<double>>& values) {
        for (const std::vector<double>& e : values) {
            adapters.emplace_back(concat("layer.", adapters.size()),
                                  std::make_shared<AdaLora<double, Cpu>>(Tensor<double>::full({2, 4}, 1.0),
                                                                         Tensor<double>::full({3, 2}, 1.0),
                                                                         Tensor<double>::from(e, {2, 1}), 1, 0, 0));
            set_gradient(adapters.back().second->a(), {0, 0, 0, 0, 0, 0, 0, 0});
            set_gradient(adapters.back().second->b(), {0, 0, 0, 0, 0, 0});
            set_gradient(adapters.back().second->e(), {1, 1});
        }
    }

    void set_gradient(const Tensor<double>& of, const std::vector<double>& values) {
        gradients.remove(of);
        gradients.add(of.node(), Tensor<double>::from(values, of.shape()));
    }
    void set_values(std::size_t layer, const std::vector<double>& values) {
        Tensor<double> e = adapters[layer].second->e();
        std::copy(values.begin(), values.end(), e.mutable_data());
    }
    std::vector<double> values(std::size_t layer) const { return adapters[layer].second->e().to_vector(); }
    Marks kept(std::size_t layer) const { return adapters[layer].second->kept(); }
};

AdaLoraConfig bench_config() {
    AdaLoraConfig config;
    config.init_r = 2;
    config.target_r = 1;
    config.tinit = 2;
    config.tfinal = 2;
    config.delta_t = 3;
    config.total_step = 10;
    config.beta1 = config.beta2 = 0.5;
    return config;
}

using Model = Gpt2<float>;

const Dataset& rows() {
    static const Dataset data = load_dataset(fixture("peft_data.jsonl").string(), {}, {});
    return data;
}

/// A run of 12 steps, each of two micro-batches, with dropout and allocations.
struct Run {
    static constexpr std::int64_t steps = 12;
    Model model = load_gpt2<float>(fixture("peft_base"));
    AdaLoraConfig config = settings();
    DataLoader loader{rows(), {.batch_size = 2, .accumulation_steps = 2}};
    AdamW<float> optimizer;
    AdaLoraTraining<float, Cpu> method;
    Trainer<float, Cpu, Model> trainer;

    Run()
        : optimizer({(attach_adapter<float, Cpu>(model, config, 3), trained_group<float>(model))},
                    AdamWOptions{.learning_rate = 2e-2}),
          method(model, config),
          trainer(model, loader, optimizer, options(), &method) {}

    static AdaLoraConfig settings() {
        AdaLoraConfig config;
        config.target_modules = ModuleSelection("all-linear");
        config.init_r = 4;
        config.target_r = 2;
        config.tinit = 1;
        config.tfinal = 3;
        config.delta_t = 3;
        config.total_step = steps;
        config.lora_dropout = 0.1;
        return config;
    }
    static TrainerOptions options() {
        TrainerOptions options;
        options.max_steps = steps;
        options.seed = 4;
        return options;
    }
    void train_to(std::int64_t step) {
        while (trainer.steps() < step) {
            trainer.step();
        }
    }
    std::vector<std::vector<float>> tensors() {
        std::vector<std::vector<float>> all;
        for (const auto& tensor : trainable_tensors<float, Cpu>(model)) {
            all.push_back(tensor.values.to_vector());
        }
        return all;
    }
    std::vector<Marks> kept() {
        std::vector<Marks> all;
        for (const auto& [path, adapter] : adalora_adapters<float, Cpu>(model)) {
            all.push_back(adapter->kept());
        }
        return all;
    }
    Tensor<float> logits() {
        const NoGrad no_grad;
        const auto ids = Tensor<std::int32_t>::from(std::vector<std::int32_t>{1, 2, 3, 4, 5, 6}, {1, 6});
        return model.logits(model.hidden(ids));
    }
};

} // namespace

TEST_CASE("the penalty is the mean distance of the factors from orthogonal, and has its gradient") {
    const Tensor<double> a = waves({2, 5}, 0.7), b = waves({4, 2}, 1.3);
    const auto report = gradient_check(
        [](const Tensor<double>& x, const Tensor<double>& y) {
            return detail::distance_from_orthogonal(x) + detail::distance_from_orthogonal(transpose(y, 0, 1));
        },
        a, b);
    CHECK_MESSAGE(report.ok, report.str());

    double squares = 0; // of AAᵀ - I
    const std::vector<double> values = a.to_vector();
    for (std::size_t i = 0; i < 2; ++i) {
        for (std::size_t j = 0; j < 2; ++j) {
            double dot = i == j ? -1 : 0;
            for (std::size_t k = 0; k < 5; ++k) {
                dot += values[5 * i + k] * values[5 * j + k];
            }
            squares += dot * dot;
        }
    }
    CHECK(detail::distance_from_orthogonal(a).item() == doctest::Approx(std::sqrt(squares)));

    const auto identity = Tensor<double>::from(std::vector<double>{1, 0, 0, 0, 1, 0}, {2, 3});
    const auto zeros = Tensor<double>::zeros({3, 2}), e = Tensor<double>::zeros({2, 1});
    const auto adapter = std::make_shared<AdaLora<double, Cpu>>(identity, zeros, e, 1, 0, 0);
    const Tensor<double> penalty = orthogonality<double, Cpu>({{"layer", adapter}});
    CHECK(penalty.item() == doctest::Approx(std::sqrt(2.0) / 2)); // 0 of A, √2 of B
    const Gradients gradients = backward(penalty);
    CHECK(gradients[adapter->a()].to_vector() == std::vector<double>(6, 0.0)); // at the kink, and no NaN
    CHECK_FALSE(orthogonality<double, Cpu>({}).defined());
}

TEST_CASE("the budget falls with the cube of what is left, from all triplets to the target") {
    const Bench bench({{1, 1}, {1, 1}});
    AdaLoraConfig config = bench_config();
    const RankAllocator<double, Cpu> allocator(bench.adapters, config);
    std::vector<std::int64_t> budgets;
    for (std::int64_t step = 0; step < 10; ++step) {
        budgets.push_back(allocator.budget(step));
    }
    CHECK(budgets == std::vector<std::int64_t>{4, 4, 4, 3, 2, 2, 2, 2, 2, 2}); // 2 + 2·(5/6)³ is 3.2
    const auto refused = [&](const std::function<void(AdaLoraConfig&)>& change) {
        AdaLoraConfig other = config;
        change(other);
        return message_of<OptionError>([&] { RankAllocator<double, Cpu>(bench.adapters, other); });
    };
    CHECK(refused([](AdaLoraConfig& c) { c.total_step = 0; }) ==
          "AdaLoRA settings: key 'total_step': found 0, expected the steps of the training");
    CHECK(refused([](AdaLoraConfig& c) { c.target_r = 3; }).find("'target_r': found 3, expected at most init_r, 2") !=
          std::string::npos);
    CHECK(refused([](AdaLoraConfig& c) { c.tinit = 8; }).find("'tinit': found 8 with tfinal 2 of total_step 10") !=
          std::string::npos);
    CHECK(refused([](AdaLoraConfig& c) { c.beta1 = 1; }).find("'beta1'") != std::string::npos);
    CHECK(refused([](AdaLoraConfig& c) { c.delta_t = 0; }).find("'deltaT'") != std::string::npos);
    CHECK(refused([](AdaLoraConfig& c) { c.lora_alpha = 0; }).find("'lora_alpha'") != std::string::npos);
}

TEST_CASE("the triplets that matter least lose their values, may win them back, and the last allocation stands") {
    Bench bench({{1, -2}, {3, 0.5}});
    RankAllocator<double, Cpu> allocator(bench.adapters, bench_config());
    std::int64_t step = 0;
    const auto update = [&] { allocator.update_and_allocate(step++, bench.gradients, 0.5); };
    update();
    const auto& e = allocator.triplets()[0].e; // |e·∂e| is 0.5 and 1, the gradients halved
    CHECK(e.sensitivity.to_vector() == std::vector<double>{0.25, 0.5});
    CHECK(e.uncertainty.to_vector() == std::vector<double>{0.125, 0.25});
    update();
    CHECK(e.sensitivity.to_vector() == std::vector<double>{0.375, 0.75});
    CHECK(e.uncertainty.to_vector() == std::vector<double>{0.125, 0.25});
    update();
    CHECK(bench.values(1) == std::vector<double>{3, 0.5});
    update(); // step 3: a budget of 3
    CHECK(bench.kept(0) == Marks{true, true});
    CHECK(bench.kept(1) == Marks{true, false});
    CHECK(bench.values(0) == std::vector<double>{1, -2});
    CHECK(bench.values(1) == std::vector<double>{3, 0});
    bench.set_values(1, {3, 5}); // the optimizer goes on with it
    update();
    update();
    CHECK(bench.values(1) == std::vector<double>{3, 5});
    update(); // step 6: a budget of 2, and what changes most counts most
    CHECK(bench.kept(0) == Marks{false, false});
    CHECK(bench.kept(1) == Marks{true, true});
    CHECK(bench.values(0) == std::vector<double>{0, 0});
    bench.set_values(0, {9, 0.1});
    update();
    CHECK(allocator.is_known());
    update(); // step 8: the last allocation
    CHECK_FALSE(allocator.is_known());
    CHECK(bench.kept(0) == Marks{true, false});
    CHECK(bench.kept(1) == Marks{false, true});
    bench.set_values(0, {1, 1});
    bench.set_values(1, {1, 1});
    update();
    CHECK(bench.values(0) == std::vector<double>{1, 0});
    CHECK(bench.values(1) == std::vector<double>{0, 1});
}

TEST_CASE("a triplet's vectors count by the means of their elements, and equal scores fall together") {
    AdaLoraConfig config = bench_config();
    config.tinit = 0;
    config.delta_t = 1;
    Bench bench({{1, 1}});
    bench.set_gradient(bench.adapters[0].second->e(), {0, 0});
    bench.set_gradient(bench.adapters[0].second->a(), {2, 0, 0, 0, 0, 0, 0, 0}); // squares: 4 in all, 1 on average
    bench.set_gradient(bench.adapters[0].second->b(), {0, 1.1, 0, 1.1, 0, 1.1}); // 3.63 and 1.21
    RankAllocator<double, Cpu> allocator(bench.adapters, config);
    allocator.update_and_allocate(0, bench.gradients);
    CHECK(bench.kept(0) == Marks{true, true}); // all of the budget
    allocator.update_and_allocate(1, bench.gradients);
    CHECK(bench.kept(0) == Marks{false, true});

    Bench equal({{1, 1}, {1, 1}});
    RankAllocator<double, Cpu> other(equal.adapters, config);
    other.update_and_allocate(0, equal.gradients);
    other.update_and_allocate(1, equal.gradients);
    CHECK(equal.kept(0) == Marks{false, false}); // as in PEFT, whose threshold is a score
    CHECK(equal.kept(1) == Marks{false, false});

    config.target_r = 2; // nothing to take away
    Bench all({{1, 2}});
    RankAllocator<double, Cpu> idle(all.adapters, config);
    for (int step = 0; step < 10; ++step) {
        idle.update_and_allocate(step, all.gradients);
    }
    CHECK(all.kept(0) == Marks{true, true});
}

TEST_CASE("a resumed run allocates and ends with the bits of one that never stopped") {
    Run straight;
    straight.train_to(Run::steps);
    std::size_t kept = 0;
    for (const Marks& marks : straight.kept()) {
        kept += static_cast<std::size_t>(std::count(marks.begin(), marks.end(), true));
    }
    CHECK(kept == 2 * straight.kept().size());
    const TemporaryDirectory directory;
    for (const std::int64_t stop : {std::int64_t(1), std::int64_t(5), std::int64_t(7), std::int64_t(10)}) {
        CAPTURE(stop);
        const std::filesystem::path checkpoint = checkpoint_path(directory.path(), stop);
        Run first;
        first.train_to(stop);
        first.trainer.save_checkpoint(checkpoint);
        Run second;
        second.trainer.resume(checkpoint);
        CHECK(second.kept() == first.kept());
        CHECK(second.tensors() == first.tensors());
        second.train_to(Run::steps);
        CHECK(second.kept() == straight.kept());
        CHECK(second.tensors() == straight.tensors());
    }
    const std::filesystem::path checkpoint = checkpoint_path(directory.path(), 5);
    const auto refused = [&](const char* file, const std::string& from, const std::string& to) {
        const std::string whole = file_bytes(checkpoint / file);
        std::string changed = whole;
        write_file(checkpoint / file, changed.replace(changed.find(from), from.size(), to));
        Run run;
        const std::string message = message_of<FileError>([&] { run.trainer.resume(checkpoint); });
        write_file(checkpoint / file, whole);
        return message;
    };
    CHECK(refused("importance.safetensors", "sensitivity.transformer.h.0.attn.c_attn.lora_A",
                  "sensitivity.transformer.h.9.attn.c_attn.lora_A")
              .find("sensitivity.transformer.h.0.attn.c_attn.lora_A") != std::string::npos);
    CHECK(
        refused("trainer_state.json", "\"transformer.h.0.attn.c_attn\": [", "\"transformer.h.0.attn.c_attn\": [true, ")
            .find("found 5 marks, expected 4") != std::string::npos);
    CHECK(refused("trainer_state.json", "\"transformer.h.0.attn.c_attn\": [", "\"transformer.h.0.attn.c_attn\": [1, ")
              .find("expected a list of true and false") != std::string::npos);
}

TEST_CASE("a file holds the kept triplets, and says again after more training which they were") {
    Run run;
    run.train_to(Run::steps);
    const TemporaryDirectory directory;
    save_adapter<float, Cpu>(run.model, run.config, directory / "once");
    Run again;
    again.config = std::get<AdaLoraConfig>(load_adapter<float, Cpu>(again.model, directory / "once"));
    CHECK(relative_error(again.logits(), run.logits()) <= 1e-6);
    const std::vector<Marks> kept = run.kept();
    const auto adapters = adalora_adapters<float, Cpu>(again.model);
    REQUIRE(adapters.size() == kept.size());
    for (std::size_t i = 0; i < adapters.size(); ++i) {
        CHECK(again.config.rank_pattern.at(adapters[i].first) == kept[i]);
        CHECK(adapters[i].second->r() == std::count(kept[i].begin(), kept[i].end(), true));
    }
    // Of the first layer that has two, the first goes: in the file's marks it is the first true one.
    const auto two =
        std::find_if(adapters.begin(), adapters.end(), [](const auto& entry) { return entry.second->r() == 2; });
    REQUIRE(two != adapters.end());
    two->second->keep({false, true});
    two->second->mask();
    save_adapter<float, Cpu>(again.model, again.config, directory / "twice");
    Run third;
    const auto config = std::get<AdaLoraConfig>(load_adapter<float, Cpu>(third.model, directory / "twice"));
    CHECK(relative_error(third.logits(), again.logits()) <= 1e-6);
    Marks expected = again.config.rank_pattern.at(two->first);
    *std::find(expected.begin(), expected.end(), true) = false;
    CHECK(config.rank_pattern.at(two->first) == expected);

    AdaLoraConfig unknown = run.config;
    unknown.total_step = 0;
    CHECK(message_of<OptionError>([&] {
              save_adapter<float, Cpu>(run.model, unknown, directory / "never");
          }).find("total_step") != std::string::npos);
    const std::filesystem::path file = directory / "once" / "adapter_config.json";
    const std::string text = file_bytes(file);
    const auto loaded = [&](const std::string& from, const std::string& to) {
        std::string changed = text;
        write_file(file, changed.replace(changed.find(from), from.size(), to));
        Model model = load_gpt2<float>(fixture("peft_base"));
        return message_of<FileError>([&] { load_adapter<float, Cpu>(model, directory / "once"); });
    };
    CHECK(loaded("\"total_step\": 12", "\"total_step\": null").find("key 'total_step': found null") !=
          std::string::npos);
    CHECK(loaded("c_attn.lora_E\": [", "c_attn.lora_E\": [true, ").find("found 5 marks, expected 4, init_r") !=
          std::string::npos);
    CHECK(loaded("c_attn.lora_E\": [", "c_attn.lora_E\": [7, ").find("expected a list of true and false") !=
          std::string::npos);
    CHECK(loaded("c_attn.lora_E\": [", "c_attn.lora_A\": [").find("expected the path of a layer") != std::string::npos);
    CHECK(loaded("\"use_dora\": false", "\"use_dora\": true").find("'use_dora'") != std::string::npos);
}
