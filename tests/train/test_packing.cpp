// Packed rows of real data train as the rows by themselves do.
#include <filesystem>

#include "lowrank/data/batch.hpp"
#include "lowrank/data/load.hpp"
#include "lowrank/data/packing.hpp"
#include "lowrank/models/gpt2_init.hpp"
#include "lowrank/text/load_tokenizer.hpp"
#include "lowrank/train/evaluate.hpp"
#include "models_testing.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

using Model = Gpt2<double>; // so that differences are of the mathematics, not of rounding

struct Result {
    double loss = 0;
    std::int64_t supervised = 0, padded = 0;
    Gradients gradients;
};

/// The summed loss of a dataset in batches of `rows`, and its gradients.
Result trained(const Model& model, const Dataset& data, std::size_t rows) {
    Result result;
    for (std::size_t begin = 0; begin < data.size(); begin += rows) {
        std::vector<std::size_t> picked;
        for (std::size_t row = begin; row < std::min(begin + rows, data.size()); ++row) {
            picked.push_back(row);
        }
        const Batch batch = make_batch(data, picked);
        ForwardContext<Cpu> context;
        context.document_start = detail::document_start_of<Cpu>(batch);
        const auto loss = model.loss(detail::batch_tensor<Cpu>(batch, batch.input_ids),
                                     detail::batch_tensor<Cpu>(batch, batch.labels), context);
        backward(loss, result.gradients);
        result.loss += loss.item();
        result.supervised += batch.supervised_tokens;
        result.padded += batch.rows * batch.length;
    }
    return result;
}

} // namespace

TEST_CASE("real rows packed: the loss and the gradients of the rows padded, and of each row alone") {
    const std::string shared = LOWRANK_SHARED_DATA;
    if (!std::filesystem::exists(shared + "/gpt2/vocab.json")) {
        MESSAGE("skipped: no data in ", shared);
        return;
    }
    DataOptions options;
    options.max_seq_length = 160;
    const Tokenizer tokenizer = Tokenizer::load(shared + "/gpt2");
    Dataset data = load_dataset(shared + "/instruct/sharegpt-500.json", options, tokenizer);
    const Dataset more = load_dataset(shared + "/instruct/alpaca-format-1100.json", options, tokenizer);
    data.examples.resize(8);
    data.examples.insert(data.examples.end(), more.examples.begin(), more.examples.begin() + 24);
    data.origins.assign(data.size(), Origin{0, 1, 1});
    Gpt2Config config;
    config.vocab_size = 61;
    for (Example& row : data.examples) { // a small vocabulary, so that the model is small
        for (std::size_t i = 0; i < row.input_ids.size(); ++i) {
            row.input_ids[i] %= 61;
            row.labels[i] = row.labels[i] == ignored_label ? ignored_label : row.input_ids[i];
        }
    }
    config.n_positions = 160;
    config.n_embd = 32;
    config.n_inner = 64;
    config.n_layer = 2;
    config.n_head = 4;
    config.embd_pdrop = config.attn_pdrop = config.resid_pdrop = 0;
    Model model = new_gpt2<double>(config, 7);

    const Dataset packed_data = pack_dataset(data, 160);
    const Result packed = trained(model, packed_data, 4), padded = trained(model, data, 8),
                 alone = trained(model, data, 1);
    CHECK(packed_data.size() < data.size() / 2);
    CHECK(packed.padded < padded.padded);
    CHECK(packed.supervised == alone.supervised);
    CHECK(padded.supervised == alone.supervised);
    for (const Result* result : {&packed, &padded}) {
        CHECK(std::abs(result->loss - alone.loss) <= 1e-10 * alone.loss);
        for_each_parameter<double>(model, [&](const std::string& path, auto& field) {
            if (field.defined()) {
                CAPTURE(path);
                const Tensor<double> values = trained_values(field);
                CHECK(relative_error(result->gradients[values], alone.gradients[values]) <= 1e-10);
            }
        });
    }
    const double mean = alone.loss / static_cast<double>(alone.supervised);
    CHECK(evaluate<Cpu>(model, packed_data, 4) == doctest::Approx(mean).epsilon(1e-10));
    CHECK(evaluate<Cpu>(model, data, 8) == doctest::Approx(mean).epsilon(1e-10));
}
