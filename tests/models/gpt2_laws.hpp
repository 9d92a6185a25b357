// What must not change GPT-2's loss and gradients, for activations of any type: packing documents into a row, padding,
// checkpointing.
#pragma once

#include <algorithm>
#include <cmath>

#include "lowrank/models/gpt2_checkpoint.hpp"
#include "models_testing.hpp"

namespace lowrank::testing {

using Ids = Tensor<std::int32_t>;

template <class T>
Gpt2<T> trainable_model(const char* name) {
    Gpt2<T> model = load_gpt2<T>(fixture(name));
    for_each_parameter<compute_t<T>>(model, [](const std::string&, auto& field) { set_trainable(field, true); });
    return model;
}

/// Documents one after the other in one row, or each in a row of its own.
struct Documents {
    std::vector<std::vector<std::int32_t>> ids;

    /// Supervised after the second token of each document; its first label judges nothing.
    static std::vector<std::int32_t> labels(std::vector<std::int32_t> document) {
        document[1] = ignored_label;
        return document;
    }
};

inline const Documents documents{
    {{3, 14, 15, 92, 65, 35, 89}, {7, 9, 32, 38, 46, 26, 43, 38, 32, 79, 50}, {28, 84, 19}}};

/// A loss and its gradients.
struct Result {
    double loss = 0;
    Gradients gradients;

    template <class C>
    void add(const Tensor<C>& part) {
        loss += static_cast<double>(part.item());
        backward(part, gradients);
    }
};

template <class T>
void check_equal(Gpt2<T>& model, const Result& found, const Result& expected, double tolerance) {
    CHECK(std::abs(found.loss - expected.loss) <= tolerance * std::abs(expected.loss));
    for_each_parameter<compute_t<T>>(model, [&](const std::string& path, auto& field) {
        if (field.defined()) {
            CAPTURE(path);
            const Tensor<compute_t<T>> values = trained_values(field);
            CHECK(relative_error(found.gradients[values], expected.gradients[values]) <= tolerance);
        }
    });
}

template <class T>
Result separate_rows(const Gpt2<T>& model) {
    Result result;
    for (const auto& document : documents.ids) {
        const Shape shape{1, static_cast<std::int64_t>(document.size())};
        result.add(model.loss(Ids::from(document, shape), Ids::from(Documents::labels(document), shape)));
    }
    return result;
}

/// Documents packed into a row: the loss and the gradients of separate rows.
template <class T>
void check_packing(double tolerance) {
    for (const char* name : {"gpt2_tied", "gpt2_untied"}) {
        CAPTURE(name);
        Gpt2<T> model = trainable_model<T>(name);
        std::vector<std::int32_t> ids, labels, starts;
        for (const auto& document : documents.ids) {
            const auto start = static_cast<std::int32_t>(ids.size());
            ids.insert(ids.end(), document.begin(), document.end());
            const std::vector<std::int32_t> supervised = Documents::labels(document);
            labels.insert(labels.end(), supervised.begin(), supervised.end());
            starts.insert(starts.end(), document.size(), start);
        }
        const Shape shape{1, static_cast<std::int64_t>(ids.size())};
        ForwardContext<Cpu> context;
        context.document_start = Ids::from(starts, shape);
        Result packed;
        packed.add(model.loss(Ids::from(ids, shape), Ids::from(labels, shape), context));
        check_equal(model, packed, separate_rows(model), tolerance);

        Result leaking; // the same row as one document is something else
        leaking.add(model.loss(Ids::from(ids, shape), Ids::from(labels, shape)));
        CHECK(std::abs(leaking.loss - packed.loss) > 1e-3 * packed.loss);
    }
}

/// Padded rows together: the loss and the gradients of the rows one by one.
template <class T>
void check_padding(double tolerance) {
    Gpt2<T> model = trainable_model<T>("gpt2_tied");
    std::size_t length = 0;
    for (const auto& document : documents.ids) {
        length = std::max(length, document.size());
    }
    std::vector<std::int32_t> ids, labels;
    for (std::vector<std::int32_t> document : documents.ids) {
        std::vector<std::int32_t> supervised = Documents::labels(document);
        document.resize(length, 0);
        supervised.resize(length, ignored_label);
        ids.insert(ids.end(), document.begin(), document.end());
        labels.insert(labels.end(), supervised.begin(), supervised.end());
    }
    const Shape shape{static_cast<std::int64_t>(documents.ids.size()), static_cast<std::int64_t>(length)};
    Result batch;
    batch.add(model.loss(Ids::from(ids, shape), Ids::from(labels, shape)));
    check_equal(model, batch, separate_rows(model), tolerance);
}

/// Checkpointing changes no bit, with dropout.
template <class T>
void check_checkpointing() {
    Gpt2<T> model = trainable_model<T>("gpt2_noprefix"); // whose config asks for dropout of 0.1
    const Ids ids = Ids::from(documents.ids[1], {1, 11});
    ForwardContext<Cpu> context;
    context.training = true;
    context.seed = Tensor<std::int64_t>::scalar(42);
    Result plain, checkpointed, other_seed;
    plain.add(model.loss(ids, ids, context));
    model.gradient_checkpointing = true;
    checkpointed.add(model.loss(ids, ids, context));
    check_equal(model, checkpointed, plain, 0);
    context.seed = Tensor<std::int64_t>::scalar(43);
    other_seed.add(model.loss(ids, ids, context));
    CHECK(other_seed.loss != plain.loss);
}

} // namespace lowrank::testing
