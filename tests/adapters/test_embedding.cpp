// LoRA and DoRA on an embedding: the method's formula in value and in every gradient, starts, merges, refusals.

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "lowrank/adapters/attach.hpp"
#include "lowrank/adapters/merge.hpp"
#include "reference.hpp"
#include "toy_layers.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

using Ids = Tensor<std::int32_t>;

constexpr std::int64_t rows = 11, width = 5;

/// A table alone.
template <class T>
struct Table {
    Embedding<T, Cpu> table;

    explicit Table(std::uint64_t seed) {
        Rng rng(seed, 0);
        const X values = random(rng, {rows, width}, 0.4);
        table.weight =
            std::make_shared<DenseWeight<compute_t<T>, Cpu>>(cast<compute_t<T>>(values), Orientation::out_in);
    }
    template <class Visit>
    void fields(Visit&& visit) {
        visit("table", table);
    }
    std::map<std::string, Tensor<compute_t<T>>> parameters() const {
        std::map<std::string, Tensor<compute_t<T>>> found;
        table.adapter->parameters([&](const std::string& name, const auto& values) { found.emplace(name, values); });
        return found;
    }
};

/// The kinds of LoRA that embeddings have, α ≠ r and A ≠ 0.
std::vector<Method> embedding_methods() {
    std::vector<Method> kinds = methods();
    std::erase_if(kinds, [](const Method& method) { return method.config.lora_bias; });
    for (Method& method : kinds) {
        method.config.target_modules = std::vector<std::string>{"table"};
    }
    return kinds;
}

double scale_of(const LoraConfig& config) {
    return lora_scale(config.lora_alpha, config.r, config.use_rslora);
}

Table<double> adapted_table(const LoraConfig& config) {
    Table<double> model(3);
    attach_lora<double, Cpu>(model, config, 17);
    Rng rng(4, 0);
    for (auto& [name, values] : model.parameters()) {
        for (std::int64_t i = 0; values.rank() == 1 && i < values.numel(); ++i) {
            values.mutable_data()[i] *= 1 + 0.2 * rng.normal();
        }
    }
    return model;
}

/// table + s·AᵀBᵀ, by loops.
std::vector<double> naive_sum(const Table<double>& model, double s) {
    const auto p = model.parameters();
    const X a = p.at("lora_embedding_A"), b = p.at("lora_embedding_B");
    std::vector<double> sum = dense_values(model.table.weight).to_vector();
    for (std::int64_t v = 0; v < rows; ++v) {
        for (std::int64_t j = 0; j < width; ++j) {
            for (std::int64_t k = 0; k < a.size(0); ++k) {
                sum[static_cast<std::size_t>(v * width + j)] +=
                    s * a.data()[k * rows + v] * b.data()[j * a.size(0) + k];
            }
        }
    }
    return sum;
}

X column_norms(const std::vector<double>& table) {
    std::vector<double> norms(width);
    for (std::size_t i = 0; i < table.size(); ++i) {
        norms[i % width] += table[i] * table[i];
    }
    for (double& norm : norms) {
        norm = std::sqrt(norm);
    }
    return X::from(norms, {width});
}

const Ids ids = Ids::from(std::vector<std::int32_t>{3, 0, 3, 10, 7, 1, 3, 9}, {2, 4}); // 3 comes three times

} // namespace

TEST_CASE("an adapted embedding is PEFT's formula, in value and in every gradient") {
    for (const Method& method : embedding_methods()) {
        CAPTURE(method.name);
        const Table<double> model = adapted_table(method.config);
        const double s = scale_of(method.config);
        const X norms = column_norms(naive_sum(model, s)); // a constant in the gradient, DoRA's section 4.3
        auto p = model.parameters();
        const X index_rows = dense_values(model.table.weight);
        const auto naive = [&] {
            X table = index_rows +
                      matmul(transpose(p.at("lora_embedding_A"), 0, 1), transpose(p.at("lora_embedding_B"), 0, 1)) * s;
            table = method.config.use_dora ? table * (p.at("lora_magnitude_vector") / norms) : table;
            return reshape(index_select(table, 0, reshape(ids, {8})), {2, 4, width});
        };
        const auto fused = [&] { return model.table.forward(ids); };
        const X y = fused(), expected = naive();
        CHECK(relative_error(y, expected) <= 1e-13);
        CHECK(relative_error(y, Table<double>(3).table.forward(ids)) > 1e-2); // the adapter matters

        Rng rng(6, 0);
        const X dy = random(rng, y.shape());
        Gradients gradients, expected_gradients;
        backward(y, dy, gradients);
        backward(expected, dy, expected_gradients);
        CHECK(p.size() == (method.config.use_dora ? 3 : 2));
        for (const auto& entry : p) {
            CAPTURE(entry.first);
            const X& values = entry.second;
            REQUIRE(gradients.find(values) != nullptr);
            const X& gradient = *gradients.find(values);
            CHECK(relative_error(gradient, *expected_gradients.find(values)) <= 1e-12);
            CHECK(relative_error(gradient, numeric_gradient(values, dy, naive)) <= 1e-7);
            // The norm depends on A and B, but no gradient flows through it.
            const bool through_norm = method.config.use_dora && values.rank() == 2;
            const double error = relative_error(gradient, numeric_gradient(values, dy, fused));
            CHECK(through_norm == (error > 1e-3));
            CHECK((through_norm || error <= 1e-7));
        }
    }
}

TEST_CASE("a merged table has the adapted rows, and unmerging brings the same objects back") {
    const Ids all = Ids::from(
        [] {
            std::vector<std::int32_t> list(rows);
            for (std::size_t i = 0; i < list.size(); ++i) {
                list[i] = static_cast<std::int32_t>(i);
            }
            return list;
        }(),
        {rows});
    for (const Method& method : embedding_methods()) {
        CAPTURE(method.name);
        Table<double> model = adapted_table(method.config);
        const Table<double> kept = model;
        const X before = model.table.forward(all).detach(), old_table = dense_values(model.table.weight);
        MergedAdapters merged = merge<double, Cpu>(model);
        CHECK(merged.size() == 1);
        CHECK(model.table.adapter == nullptr);
        CHECK(relative_error(dense_values(model.table.weight), before) <= 1e-13);
        CHECK(dense_values(kept.table.weight).to_vector() == old_table.to_vector());
        merged.unmerge();
        CHECK(model.table.weight.frozen() == kept.table.weight.frozen());
        CHECK(model.table.adapter == kept.table.adapter);
        CHECK(model.table.forward(all).to_vector() == before.to_vector());
    }
}

TEST_CASE("magnitudes start as the norms of the columns, so that DoRA starts as LoRA") {
    for (const LoraInit init : {LoraInit::kaiming, LoraInit::random}) {
        LoraConfig config = embedding_methods()[0].config;
        config.init_lora_weights = init;
        Table<double> lora(3), dora(3);
        attach_lora<double, Cpu>(lora, config, 17);
        config.use_dora = true;
        attach_lora<double, Cpu>(dora, config, 17);
        const X m = dora.parameters().at("lora_magnitude_vector");
        CHECK(m.shape() == Shape{width});
        CHECK(relative_error(m, column_norms(naive_sum(dora, scale_of(config)))) <= 1e-14);
        CHECK(relative_error(dora.table.forward(ids), lora.table.forward(ids)) <= 1e-14);
        const bool nothing = lora.table.forward(ids).to_vector() == Table<double>(3).table.forward(ids).to_vector();
        CHECK(nothing == (init == LoraInit::kaiming));
    }
    LoraConfig fa = embedding_methods()[2].config; // DoRA
    fa.freeze_a = true;
    Table<double> model(3);
    attach_lora<double, Cpu>(model, fa, 17);
    std::vector<std::string> names;
    for (const auto& tensor : trainable_tensors<double, Cpu>(model)) {
        names.push_back(tensor.name);
    }
    CHECK(names == std::vector<std::string>{"table.lora_embedding_B", "table.lora_magnitude_vector"});
}

TEST_CASE("in bf16 DoRA's rows are those of fp32, rounded once") {
    LoraConfig config = embedding_methods()[3].config;
    Table<float> exact(3);
    Table<bf16> rounded(3);
    attach_lora<float, Cpu>(exact, config, 17);
    attach_lora<bf16, Cpu>(rounded, config, 17);
    for (const auto& model_parameters : {exact.parameters(), rounded.parameters()}) {
        Tensor<float> m = model_parameters.at("lora_magnitude_vector");
        for (std::int64_t j = 0; j < width; ++j) {
            m.mutable_data()[j] *= 1 + 0.1f * static_cast<float>(j);
        }
    }
    const Tensor<bf16> found = rounded.table.forward(ids);
    const std::vector<bf16> expected = cast<bf16>(exact.table.forward(ids)).to_vector();
    for (std::size_t i = 0; i < expected.size(); ++i) {
        CHECK(float(found.data()[i]) == float(expected[i]));
    }
    const Gradients gradients = backward(sum(found));
    for (const auto& tensor : trainable_tensors<bf16, Cpu>(rounded)) {
        CHECK(gradients.find(tensor.values) != nullptr);
    }
}

TEST_CASE("what does not fit an embedding is refused by name") {
    const auto message = [](const auto& run) -> std::string {
        try {
            run();
        } catch (const Error& error) {
            return error.what();
        }
        return "";
    };
    const auto has = [](const std::string& text, std::initializer_list<const char*> parts) {
        CAPTURE(text);
        for (const char* part : parts) {
            CHECK_MESSAGE(text.find(part) != std::string::npos, part);
        }
    };
    Rng rng(1, 0);
    const X a = random(rng, {2, rows}), b = random(rng, {width, 2});
    const WeightSlot<double, Cpu> frozen = Table<double>(3).table.weight,
                                  trained = Embedding<double, Cpu>::random(rows, width, rng).weight;
    using Dora = DoraEmbedding<double, Cpu>;
    has(message([&] { Dora(trained, a, b, {}, 1); }), {"dora", "table must be frozen"});
    has(message([&] { Dora(frozen, a, b, X::zeros({rows}), 1); }), {"magnitudes", "[11]", "[5]"});
    has(message([&] { Dora(frozen, random(rng, {2, 12}), b, {}, 1); }), {"[2, 12]", "[5, 2]", "[11, 5]"});
    has(message([&] { Dora(frozen, a, random(rng, {6, 2}), {}, 1); }), {"[6, 2]", "[11, 5]"});
    has(message([&] { Dora(frozen, a, random(rng, {width, 3}), {}, 1); }), {"no factors"});
    CHECK(message([&] { Dora(frozen, a, b, X::zeros({width}), 1); }).empty());

    LoraConfig config;
    config.target_modules = std::vector<std::string>{"table"};
    config.lora_bias = true;
    Table<double> model(3);
    has(message([&] { attach_lora<double, Cpu>(model, config, 1); }), {"'table'", "lora_bias"});
    CHECK(model.table.adapter == nullptr);
}
