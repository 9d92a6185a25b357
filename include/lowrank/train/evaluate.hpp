// The loss of a model on a dataset.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "lowrank/autograd/record.hpp"
#include "lowrank/data/loader.hpp"
#include "lowrank/nn/context.hpp"
#include "lowrank/tensor/tensor.hpp"

namespace lowrank {

namespace detail {

/// A batch's ids or labels as a tensor [rows, length].
template <DeviceTag D>
Tensor<std::int32_t, D> batch_tensor(const Batch& batch, const std::vector<std::int32_t>& values) {
    return Tensor<std::int32_t, D>::from(values, {batch.rows, batch.length});
}

/// Where the documents of a batch begin, for ForwardContext: undefined where no row is packed.
template <DeviceTag D>
Tensor<std::int32_t, D> document_start_of(const Batch& batch) {
    return batch.document_start.empty() ? Tensor<std::int32_t, D>() : batch_tensor<D>(batch, batch.document_start);
}

} // namespace detail

/// The mean loss over the supervised tokens of a dataset, without dropout.
template <DeviceTag D, class M>
double evaluate(const M& model, const Dataset& data, std::int64_t batch_size) {
    const NoGrad no_grad;
    LoaderOptions options;
    options.batch_size = batch_size;
    options.shuffle = false;
    DataLoader loader(data, options);
    double loss = 0;
    std::int64_t tokens = 0;
    for (std::int64_t i = loader.steps_per_epoch(); i > 0; --i) {
        for (const Batch& batch : loader.next().micro_batches) {
            ForwardContext<D> context;
            context.document_start = detail::document_start_of<D>(batch);
            loss += static_cast<double>(model
                                            .loss(detail::batch_tensor<D>(batch, batch.input_ids),
                                                  detail::batch_tensor<D>(batch, batch.labels), context)
                                            .item());
            tokens += batch.supervised_tokens;
        }
    }
    return loss / static_cast<double>(std::max<std::int64_t>(1, tokens));
}

} // namespace lowrank
