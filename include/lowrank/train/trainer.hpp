// The trainer: optimizer steps over a data loader, with accumulation, clipping, a schedule and a watch on the numbers.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/autograd/backward.hpp"
#include "lowrank/core/random.hpp"
#include "lowrank/data/loader.hpp"
#include "lowrank/nn/context.hpp"
#include "lowrank/ops/elementwise.hpp"
#include "lowrank/optim/adamw.hpp"
#include "lowrank/optim/clip.hpp"
#include "lowrank/optim/schedule.hpp"
#include "lowrank/train/metrics.hpp"

namespace lowrank {

/// Settings of training beside the optimizer's own.
struct TrainerOptions {
    Schedule schedule;        ///< of the learning rate
    double max_grad_norm = 1; ///< gradients are scaled down to this global norm; 0 leaves them
    std::uint64_t seed = 0;   ///< of dropout
};

namespace detail {

/// A batch's ids or labels as a tensor [rows, length].
template <DeviceTag D>
Tensor<std::int32_t, D> batch_tensor(const Batch& batch, const std::vector<std::int32_t>& values) {
    return Tensor<std::int32_t, D>::from(values, {batch.rows, batch.length});
}

} // namespace detail

/// Trains a model on what a loader gives. M has `loss(ids, labels, context)`: the sum over supervised tokens. Model,
/// loader and optimizer belong to the caller and must outlive the trainer.
template <class T, DeviceTag D, class M>
class Trainer {
  public:
    using C = compute_t<T>;

    Trainer(const M& model, DataLoader& loader, AdamW<C, D>& optimizer, const TrainerOptions& options)
        : model_(model),
          loader_(loader),
          optimizer_(optimizer),
          options_(options) {}

    /// One optimizer step: the gradient of the mean loss over the supervised tokens of all its micro-batches. A step
    /// whose loss or gradient is not finite updates nothing; the third one in a row throws NumericError, naming the
    /// first parameter concerned.
    StepMetrics step() {
        const auto start = std::chrono::steady_clock::now();
        StepMetrics metrics;
        const Step data = loader_.next();
        gradients_.zero();
        double loss_sum = 0;
        // Whatever changes from step to step reaches the kernels as a tensor.
        const auto weight = Tensor<C, D>::scalar(
            static_cast<C>(1.0 / static_cast<double>(std::max<std::int64_t>(1, data.supervised_tokens))));
        for (const Batch& batch : data.micro_batches) {
            ForwardContext<D> context;
            context.training = true;
            context.seed = Tensor<std::int64_t, D>::scalar(next_seed());
            const Tensor<C, D> loss = model_.loss(detail::batch_tensor<D>(batch, batch.input_ids),
                                                  detail::batch_tensor<D>(batch, batch.labels), context);
            loss_sum += static_cast<double>(loss.item());
            if (loss.node()) { // nothing supervised, nothing to learn
                backward(loss * weight, gradients_);
            }
        }
        metrics.loss = loss_sum / static_cast<double>(std::max<std::int64_t>(1, data.supervised_tokens));
        const GradientNorm norm = gradient_norm(optimizer_.parameters(), gradients_);
        metrics.grad_norm = norm.value;
        const double factor = options_.schedule.factor(steps_);
        metrics.learning_rate = optimizer_.options().learning_rate * factor;
        metrics.skipped = !std::isfinite(metrics.loss) || norm.first_nonfinite.has_value();
        if (metrics.skipped) {
            watch(metrics, norm);
        } else {
            skipped_in_a_row_ = 0;
            optimizer_.step(gradients_, factor, norm.clip_factor(options_.max_grad_norm));
        }
        metrics.step = ++steps_;
        metrics.epoch = loader_.epochs_done();
        metrics.tokens = data.tokens;
        metrics.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        return metrics;
    }

    std::int64_t steps() const { return steps_; }
    std::int64_t skipped_steps() const { return skipped_; }

  private:
    /// A seed for each micro-batch, from the run's seed and a counter.
    std::int64_t next_seed() {
        const PhiloxBlock block = random_block(options_.seed, 0x5eed, micro_batches_++);
        return static_cast<std::int64_t>((std::uint64_t(block[0]) << 32) | block[1]);
    }

    void watch(const StepMetrics& metrics, const GradientNorm& norm) {
        constexpr int patience = 3;
        ++skipped_;
        if (++skipped_in_a_row_ < patience) {
            return;
        }
        const std::string where = norm.first_nonfinite
                                      ? concat("the gradient of ", optimizer_.name(*norm.first_nonfinite))
                                      : std::string("the loss");
        throw NumericError(concat("training: ", where, " was not finite for ", patience, " steps in a row (loss ",
                                  metrics.loss, " at step ", steps_ + 1, "); a lower learning rate may help"));
    }

    const M& model_;
    DataLoader& loader_;
    AdamW<C, D>& optimizer_;
    TrainerOptions options_;
    Gradients gradients_;
    std::int64_t steps_ = 0, skipped_ = 0;
    int skipped_in_a_row_ = 0;
    std::uint64_t micro_batches_ = 0;
};

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
            loss += static_cast<double>(
                model
                    .loss(detail::batch_tensor<D>(batch, batch.input_ids), detail::batch_tensor<D>(batch, batch.labels))
                    .item());
            tokens += batch.supervised_tokens;
        }
    }
    return loss / static_cast<double>(std::max<std::int64_t>(1, tokens));
}

} // namespace lowrank
