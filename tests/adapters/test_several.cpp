// Several adapters on one model: switching, rows of a batch with their own, weighted sums, files by name.

#include <cmath>
#include <map>
#include <set>

#include "io/temporary_directory.hpp"
#include "lowrank/adapters/merge.hpp"
#include "lowrank/adapters/weighted_adapter.hpp"
#include "random_tensor.hpp"
#include "reference.hpp"

using namespace lowrank;
using lowrank::testing::random_tensor;
using lowrank::testing::relative_error;

namespace {

using X = Tensor<double>;
using Ids = Tensor<std::int32_t>;
using Context = ForwardContext<Cpu>;

/// An embedding and two layers, one in each orientation, with what a block has around them.
struct Toy {
    Embedding<double, Cpu> table;
    Linear<double, Cpu> up, down;

    Toy() {
        Rng rng(3);
        const auto weight = [&](const Shape& shape, Orientation orientation) {
            return std::make_shared<DenseWeight<double, Cpu>>(random_tensor<double>(shape, rng), orientation);
        };
        table.weight = weight({7, 5}, Orientation::out_in);
        up.weight = weight({6, 5}, Orientation::out_in);
        up.bias = random_tensor<double>({6}, rng);
        down.weight = weight({6, 5}, Orientation::in_out);
    }
    template <class Visit>
    void fields(Visit&& visit) {
        visit("table", table);
        visit("up", up);
        visit("down", down);
    }

    X forward(const Ids& ids, const Context& context = {}) const {
        const X x = table.forward(ids, context);
        Epilogue<double, Cpu> gelu, residual;
        gelu.activation = Activation::gelu_tanh;
        residual.residual = x;
        return down.forward(up.forward(x, context, gelu), context, residual);
    }
};

using Set = AdapterSet<double, Cpu, Toy>;

/// Adapters of every kind, none of which starts by changing nothing.
std::map<std::string, AdapterConfig> methods() {
    LoraConfig lora;
    lora.r = 2;
    lora.lora_alpha = 3;
    lora.init_lora_weights = LoraInit::random;
    lora.target_modules = std::vector<std::string>{"up", "down"};
    std::map<std::string, AdapterConfig> all{{"lora", lora}};
    lora.target_modules = std::vector<std::string>{"table", "down"};
    lora.use_rslora = true;
    all["rslora"] = lora;
    lora.target_modules = std::vector<std::string>{"up", "down"};
    lora.use_dora = true;
    all["dora"] = lora;
    lora.target_modules = std::vector<std::string>{"table", "down"};
    all["dora_table"] = lora;
    lora.use_dora = false;
    lora.lora_bias = true;
    lora.target_modules = std::vector<std::string>{"up"};
    all["lora_bias"] = lora;
    VeraConfig vera;
    vera.r = 4;
    vera.target_modules = ModuleSelection("all-linear");
    all["vera"] = vera;
    Ia3Config ia3;
    ia3.target_modules = std::vector<std::string>{"up", "down"};
    ia3.feedforward_modules = std::vector<std::string>{"down"};
    all["ia3"] = ia3;
    AdaLoraConfig adalora;
    adalora.init_r = 3;
    adalora.target_modules = std::vector<std::string>{"up"};
    all["adalora"] = adalora;
    return all;
}

/// Moves every tensor of an adapter away from where it started, so that each of them matters.
void move(Set& set, const std::string& name, Rng& rng) {
    set.for_each_adapter(name, [&](const std::string&, auto&, auto& adapter) {
        adapter.parameters([&](const std::string&, X values) {
            for (std::int64_t i = 0; i < values.numel(); ++i) {
                values.mutable_data()[i] += 0.3 * rng.normal();
            }
        });
    });
}

void add_all(Set& set) {
    Rng rng(9);
    for (const auto& [name, config] : methods()) {
        set.add(name, config, 5);
        move(set, name, rng);
    }
}

/// The trained tensors of an adapter.
std::vector<X> leaves(Set& set, const std::string& name) {
    std::vector<X> found;
    set.for_each_adapter(name, [&](const std::string&, auto&, auto& adapter) {
        adapter.parameters([&](const std::string&, const X& values) { found.push_back(values); });
    });
    return found;
}

Context by_row(std::vector<std::string> names) {
    Context context;
    context.adapter_names = std::make_shared<const std::vector<std::string>>(std::move(names));
    return context;
}

const Ids ids = Ids::from(std::vector<std::int32_t>{0, 1, 2, 3, 4, 5, 6, 0, 3, 2, 2, 1, 5, 1, 6}, {5, 3});

template <class E, class Run>
std::string refusal(const Run& run) {
    try {
        run();
    } catch (const E& error) {
        return error.what();
    }
    return "";
}

} // namespace

TEST_CASE("rows with adapters of their own are those rows run alone, and so are their gradients") {
    std::vector<std::string> names;
    for (const auto& entry : methods()) {
        names.push_back(entry.first);
    }
    std::vector<std::vector<std::string>> mixtures;
    for (const std::string& one : names) {
        mixtures.push_back({one, one, one, one, one});
        for (const std::string& other : names) {
            mixtures.push_back({one, "", other, one, other});
        }
    }
    mixtures.push_back({"", "", "", "", ""});
    Toy toy;
    Set set(toy);
    add_all(set);
    Rng rng(2);
    const X weights = random_tensor<double>({5, 3, 5}, rng);
    for (const std::vector<std::string>& rows : mixtures) {
        CAPTURE(rows[0]);
        CAPTURE(rows[2]);
        Gradients mixed, alone;
        const X together = toy.forward(ids, by_row(rows));
        if (together.node()) {
            backward(sum(together * weights), mixed);
        }
        for (std::int64_t i = 0; i < 5; ++i) {
            const std::string& name = rows[static_cast<std::size_t>(i)];
            set.set_active(name.empty() ? std::vector<std::string>{} : std::vector{name});
            const X row = toy.forward(contiguous(slice(ids, 0, i, i + 1)));
            CHECK(relative_error(contiguous(slice(together, 0, i, i + 1)), row) <= 1e-13);
            if (row.node()) {
                backward(sum(row * slice(weights, 0, i, i + 1)), alone);
            }
        }
        for (const std::string& name : std::set<std::string>(rows.begin(), rows.end())) {
            if (!name.empty()) {
                for (const X& leaf : leaves(set, name)) {
                    REQUIRE(alone.find(leaf) != nullptr);
                    CHECK(relative_error(*mixed.find(leaf), *alone.find(leaf)) <= 1e-12);
                }
            }
        }
    }
    CHECK(refusal<ShapeError>([&] { toy.forward(ids, by_row({"lora"})); }).find("1 names for a batch of 5") !=
          std::string::npos);
    CHECK(refusal<OptionError>([&] {
              toy.forward(ids, by_row({"lora", "lora", "other", "", ""}));
          }).find("'other'") != std::string::npos);
}

TEST_CASE("adapters that are active together add their changes up, and a merge of them computes the same") {
    Toy toy;
    Set set(toy);
    add_all(set);
    const auto layer_result = [&](const std::vector<std::string>& active, const X& x) {
        set.set_active(active);
        return toy.up.forward(x, {});
    };
    const auto rows = [&](const std::vector<std::string>& active) {
        set.set_active(active);
        return toy.table.forward(ids);
    };
    Rng rng(4);
    const X x = random_tensor<double>({4, 5}, rng);
    const NoGrad no_grad;
    const X base = layer_result({}, x), base_rows = rows({});
    for (const std::vector<std::string>& active : {std::vector<std::string>{"lora", "lora_bias"},
                                                   {"lora", "rslora"},
                                                   {"dora", "ia3"},
                                                   {"lora", "dora_table", "rslora"},
                                                   {"adalora", "vera", "lora"},
                                                   {"dora", "lora_bias", "lora"}}) {
        X expected = base, expected_rows = base_rows;
        for (const std::string& name : active) {
            expected = expected + (layer_result({name}, x) - base);
            expected_rows = expected_rows + (rows({name}) - base_rows);
        }
        CHECK(relative_error(rows(active), expected_rows) <= 1e-13);
        CHECK(relative_error(layer_result(active, x), expected) <= 1e-13);
        CHECK(relative_error(layer_result(active, x), base) > 1e-2);

        const X before = toy.forward(ids);
        auto merged = merge<double, Cpu>(toy);
        CHECK(toy.up.adapter == nullptr);
        CHECK(relative_error(toy.forward(ids), before) <= 1e-12);
        merged.unmerge();
        CHECK(toy.forward(ids).to_vector() == before.to_vector());
    }
    set.set_active({});
    CHECK(toy.forward(ids).to_vector() == Toy().forward(ids).to_vector());
}

TEST_CASE("adapters are switched, switched off for a while, listed and deleted by name") {
    Toy toy;
    const X base = Toy().forward(ids);
    Set set(toy);
    CHECK(set.names().empty());
    CHECK(toy.forward(ids).to_vector() == base.to_vector());
    add_all(set);
    CHECK(set.names() ==
          std::vector<std::string>{"adalora", "dora", "dora_table", "ia3", "lora", "lora_bias", "rslora", "vera"});
    CHECK(set.active() == std::vector<std::string>{"adalora"}); // the first one that was added
    set.set_active({"lora"});
    const X with_lora = toy.forward(ids).detach();
    CHECK(relative_error(with_lora, base) > 1e-2);
    {
        const auto off = set.disable();
        CHECK(toy.forward(ids).to_vector() == base.to_vector());
        CHECK(trainable_tensors<double, Cpu>(toy).empty());
    }
    CHECK(toy.forward(ids).to_vector() == with_lora.to_vector());
    std::vector<std::string> trained;
    for (const auto& tensor : trainable_tensors<double, Cpu>(toy)) {
        trained.push_back(tensor.name);
    }
    CHECK(trained == std::vector<std::string>{"up.lora.lora_A.weight", "up.lora.lora_B.weight",
                                              "down.lora.lora_A.weight", "down.lora.lora_B.weight"});
    for (const char* name : {"adalora", "dora", "dora_table", "ia3", "rslora", "vera"}) {
        set.remove(name);
    }
    CHECK(toy.table.adapter == nullptr);
    CHECK(set.names() == std::vector<std::string>{"lora", "lora_bias"});
    CHECK(toy.forward(ids).to_vector() == with_lora.to_vector());
    set.remove("lora");
    CHECK(set.active().empty());
    CHECK(toy.down.adapter == nullptr);
    CHECK(toy.forward(ids).to_vector() == base.to_vector());

    const auto refused = [&](const std::function<void()>& run) { return refusal<OptionError>(run); };
    const AdapterConfig lora = methods().at("lora");
    CHECK(refused([&] { set.remove("lora"); }) == "the model has no adapter 'lora'; it has lora_bias");
    CHECK(refused([&] { set.set_active({"x"}); }).find("'x'") != std::string::npos);
    CHECK(refused([&] { set.config("x"); }).find("'x'") != std::string::npos);
    CHECK(refused([&] { set.add("lora_bias", lora, 1); }).find("already") != std::string::npos);
    for (const char* name : {"", ".", "..", "a/b"}) {
        CHECK(refused([&] { set.add(name, lora, 1); }).find("name of a directory") != std::string::npos);
    }
    LoraConfig biased = std::get<LoraConfig>(lora);
    biased.bias = BiasMode::all;
    CHECK(refused([&] { set.add("b", biased, 1); }).find("bias") != std::string::npos);
    biased.bias = BiasMode::none;
    biased.modules_to_save = {"up"};
    CHECK(refused([&] { set.add("b", biased, 1); }).find("modules_to_save") != std::string::npos);
    biased.modules_to_save.clear();
    biased.target_modules = std::vector<std::string>{"absent"};
    CHECK(refused([&] { set.add("b", biased, 1); }).find("no linear layer") != std::string::npos);
    CHECK(set.names() == std::vector<std::string>{"lora_bias"});
    CHECK(refused([&] { Set second(toy); }).find("adapter already") != std::string::npos);
}

TEST_CASE("an adapter that starts from the base stands beside others, and is saved as plain LoRA") {
    Toy toy;
    const X base = toy.forward(ids);
    Set set(toy);
    add_all(set);
    LoraConfig config = std::get<LoraConfig>(methods().at("lora"));
    const auto attach = [&](Toy& model) {
        attach_from_base<double, Cpu>(model, config, 1);
        return AdapterConfig(config);
    };
    for (const LoraInit init : {LoraInit::pissa, LoraInit::olora}) {
        config.init_lora_weights = init;
        const std::string name = init == LoraInit::pissa ? "pissa" : "olora";
        const AdapterConfig& kept = set.add(name, attach);
        CHECK(std::get<LoraConfig>(kept).init_lora_weights == init);
        set.set_active({name});
        CHECK(relative_error(toy.forward(ids), base) < 1e-12); // it changes nothing yet
        for (const auto& tensor : trainable_tensors<double, Cpu>(toy)) {
            X values = tensor.values;
            for (std::int64_t i = 0; i < values.numel(); ++i) {
                values.mutable_data()[i] *= 1.25;
            }
        }
        const X trained = toy.forward(ids).detach();
        CHECK(relative_error(trained, base) > 1e-2);

        set.set_active({name, "lora"}); // changes add up
        const X both = toy.forward(ids).detach();
        CHECK(relative_error(both, trained) > 1e-3);
        const X mixed = toy.forward(ids, by_row({name, "", name, "lora", ""}));
        CHECK(relative_error(contiguous(slice(mixed, 0, 2, 3)), contiguous(slice(trained, 0, 2, 3))) < 1e-13);
        CHECK(relative_error(contiguous(slice(mixed, 0, 1, 2)), contiguous(slice(base, 0, 1, 2))) < 1e-13);

        const TemporaryDirectory directory;
        const std::filesystem::path saved = set.save(name, directory.path());
        Toy other;
        const AdapterConfig read = load_adapter<double, Cpu>(other, saved);
        CHECK(std::get<LoraConfig>(read).r == 2 * config.r);
        CHECK(relative_error(other.forward(ids), trained) < 1e-6); // files are fp32
        set.set_active({name});
        CHECK(toy.forward(ids).to_vector() == trained.to_vector());
    }

    config.init_lora_weights = LoraInit::pissa;
    config.modules_to_save = {"up"};
    config.target_modules = std::vector<std::string>{"down"};
    CHECK(refusal<OptionError>([&] { set.add("saved", attach); }).find("modules_to_save") != std::string::npos);
    set.set_active({});
    CHECK(trainable_tensors<double, Cpu>(toy).empty());
    CHECK(toy.forward(ids).to_vector() == base.to_vector());
    CHECK(refusal<OptionError>([&] { set.add("pissa", attach); }).find("already") != std::string::npos);
}

TEST_CASE("a weighted adapter is the sum of the changes, whatever the methods") {
    Toy toy;
    Set set(toy);
    add_all(set);
    CombineOptions options;
    options.combination_type = Combination::cat;
    add_weighted_adapter(set, {"lora", "rslora"}, {0.5, -1}, "cat", options);
    add_weighted_adapter(set, {"lora", "lora_bias"}, {0.5, 2}, "biased", options);
    const auto& cat = std::get<LoraConfig>(set.config("cat"));
    CHECK(cat.r == 2); // "down" has two sources, "table" and "up" one
    CHECK(rank_at(cat, "down") == 4);
    CHECK(alpha_at(cat, "down") == 4);
    CHECK_FALSE(cat.use_rslora);
    CHECK(std::get<LoraConfig>(set.config("biased")).lora_bias);
    add_weighted_adapter(set, {"vera", "adalora"}, {1, -0.4}, "factors", options); // these are products, too
    options.combination_type = Combination::svd;
    options.svd_rank = 5;
    add_weighted_adapter(set, {"dora", "lora"}, {0.7, 1.5}, "svd", options);
    add_weighted_adapter(set, {"dora_table", "rslora"}, {0.7, -1.5}, "svd of tables", options);

    Rng rng(4);
    const X x = random_tensor<double>({4, 5}, rng), z = random_tensor<double>({4, 6}, rng);
    const auto change = [&](const std::string& name, const auto& run) {
        const NoGrad no_grad;
        set.set_active({name});
        const X with = run();
        const auto off = set.disable();
        return with - run();
    };
    const auto check = [&](const std::string& name, const std::map<std::string, double>& sources, const auto& run) {
        const NoGrad no_grad;
        X expected;
        for (const auto& [source, weight] : sources) {
            const X own = change(source, run) * weight;
            expected = expected.defined() ? expected + own : own;
        }
        CHECK(relative_error(change(name, run), expected) <= 1e-12);
    };
    const auto up = [&] { return toy.up.forward(x, {}); };
    check("biased", {{"lora", 0.5}, {"lora_bias", 2}}, up);
    check("cat", {{"lora", 0.5}, {"rslora", -1}}, [&] { return toy.down.forward(z, {}); });
    check("cat", {{"rslora", -1}}, [&] { return toy.table.forward(ids); });
    check("factors", {{"vera", 1}, {"adalora", -0.4}}, up);
    check("svd", {{"dora", 0.7}, {"lora", 1.5}}, up);
    check("svd of tables", {{"dora_table", 0.7}, {"rslora", -1.5}}, [&] { return toy.table.forward(ids); });

    const std::string message = refusal<OptionError>([&] {
        add_weighted_adapter(set, {"dora", "lora"}, {1, 1}, "x", {Combination::cat, 0, {}, MajoritySign::total, 0});
    });
    CHECK(message.find("DoRA") != std::string::npos);
    CHECK(refusal<OptionError>([&] {
              add_weighted_adapter(set, {"dora_table", "rslora"}, {1, 1}, "x",
                                   {Combination::linear, 0, {}, MajoritySign::total, 0});
          }).find("combine: down: linear: an adapter is not a plain product") != std::string::npos);
    const std::string both = refusal<OptionError>([&] {
        add_weighted_adapter(set, {"rslora", "lora_bias"}, {1, 1}, "x",
                             {Combination::cat, 0, {}, MajoritySign::total, 0});
    });
    CHECK(both.find("table: an embedding has no lora_bias") != std::string::npos);
    CHECK(refusal<OptionError>([&] { add_weighted_adapter(set, {"gone"}, {1}, "x", options); }).find("'gone'") !=
          std::string::npos);
    CHECK(refusal<OptionError>([&] { add_weighted_adapter(set, {"lora"}, {1}, "cat", options); }).find("already") !=
          std::string::npos);
    CHECK(std::find(set.names().begin(), set.names().end(), "x") == set.names().end());
}
