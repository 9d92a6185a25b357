// The loader: what each optimizer step trains on, made ready in the background, from a position that can be restored.
#pragma once

#include <algorithm>
#include <cstdint>
#include <future>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/data/batch.hpp"
#include "lowrank/data/example.hpp"
#include "lowrank/data/order.hpp"

namespace lowrank {

/// How rows are grouped.
struct LoaderOptions {
    std::int64_t batch_size = 1;         ///< rows of a micro-batch
    std::int64_t accumulation_steps = 1; ///< micro-batches of an optimizer step
    std::uint64_t seed = 0;
    bool shuffle = true;          ///< a new order each epoch; false: the order of the file
    bool drop_last = false;       ///< leave out an epoch's last micro-batch when it is not full
    bool group_by_length = false; ///< rows of like length in one step; needs shuffle
};

/// Where training stands: `row` rows of epoch `epoch` (from 0) are done. With the dataset and the options it determines
/// every batch that follows.
struct DataPosition {
    std::int64_t epoch = 0;
    std::int64_t row = 0;

    friend bool operator==(const DataPosition&, const DataPosition&) = default;
};

/// One optimizer step. Its counts are those of all its micro-batches, known before the first one is computed: each
/// micro-batch's summed loss is divided by the step's `supervised_tokens` (which may be 0 where pre-tokenized rows are
/// fully masked), so that k micro-batches give the gradient of one large batch.
struct Step {
    std::vector<Batch> micro_batches;
    std::int64_t tokens = 0;            ///< padding excluded
    std::int64_t supervised_tokens = 0; ///< labels that the loss counts
};

/// Walks over a dataset step by step, epoch after epoch, without end. The last step of an epoch has fewer
/// micro-batches, or a smaller one, where the numbers do not divide: no step mixes two epochs. Evaluation uses one too:
/// shuffle = false, and steps_per_epoch() steps. While a step is worked on, the one after it is made ready on another
/// thread; what comes is the same as without. Refers to the dataset, which must outlive it.
class DataLoader {
  public:
    /// Throws OptionError for sizes below 1, for a dataset that gives no batch, and for grouping without shuffling.
    DataLoader(const Dataset& data, const LoaderOptions& options) : data_(&data), options_(options) {
        check("batch size", options.batch_size);
        check("gradient accumulation steps", options.accumulation_steps);
        if (options.group_by_length && !options.shuffle) {
            throw OptionError("group by length: found no shuffling, expected it: grouping changes the order of rows");
        }
        const auto rows = static_cast<std::int64_t>(data.size());
        rows_ = options.drop_last ? rows - rows % options.batch_size : rows;
        if (rows_ == 0) {
            throw OptionError(concat("data loader: found ", rows, " rows, expected at least ",
                                     options.drop_last ? options.batch_size : 1));
        }
        cursor_ = {{}, make_order(data, options, 0)};
    }

    DataLoader(const Dataset&&, const LoaderOptions&) = delete; // would dangle

    /// Optimizer steps of an epoch.
    std::int64_t steps_per_epoch() const {
        return divide_up(divide_up(rows_, options_.batch_size), options_.accumulation_steps);
    }

    /// The next step; moves the position behind it. Throws what making it threw.
    Step next() {
        Prepared prepared = ahead_.valid() ? ahead_.get() : prepare(*data_, options_, rows_, cursor_);
        cursor_ = std::move(prepared.behind);
        ahead_ =
            std::async(std::launch::async, &DataLoader::prepare, std::cref(*data_), options_, rows_, cursor_).share();
        return std::move(prepared.step);
    }

    /// Where the next step begins, whatever is made ready already. After the last step of an epoch this is
    /// {epoch + 1, 0}.
    DataPosition position() const { return cursor_.position; }

    /// Epochs done, with the fraction of the current one, for the log.
    double epochs_done() const {
        return static_cast<double>(cursor_.position.epoch) +
               static_cast<double>(cursor_.position.row) / static_cast<double>(rows_);
    }

    /// Continues from a saved position: no step before it is made again. Throws OptionError for one at which no step of
    /// this loader begins.
    void seek(DataPosition position) {
        const std::int64_t step_rows = options_.batch_size * options_.accumulation_steps;
        if (position.epoch < 0 || position.row < 0 || position.row >= rows_ || position.row % step_rows != 0) {
            throw OptionError(concat("data position: found epoch ", position.epoch, ", row ", position.row,
                                     ", expected a row below ", rows_, " that is a multiple of ", step_rows,
                                     ": were the data, the batch size or the accumulation changed?"));
        }
        ahead_ = {};
        if (position.epoch != cursor_.position.epoch) {
            cursor_.order = make_order(*data_, options_, position.epoch);
        }
        cursor_.position = position;
    }

  private:
    using Order = std::shared_ptr<const std::vector<std::size_t>>;
    /// A position and the order of its epoch.
    struct Cursor {
        DataPosition position;
        Order order;
    };
    struct Prepared {
        Step step;
        Cursor behind; ///< where the step after it begins
    };

    static Order make_order(const Dataset& data, const LoaderOptions& options, std::int64_t epoch) {
        std::vector<std::size_t> order = epoch_order(data.size(), options.seed, epoch, options.shuffle);
        if (options.group_by_length) {
            order = group_by_length(std::move(order), data,
                                    static_cast<std::size_t>(options.batch_size * options.accumulation_steps),
                                    options.seed, epoch);
        }
        return std::make_shared<const std::vector<std::size_t>>(std::move(order));
    }

    /// The step at `cursor`. Touches nothing of a loader, so that it may run beside one.
    static Prepared prepare(const Dataset& data, const LoaderOptions& options, std::int64_t rows, Cursor cursor) {
        Step step;
        DataPosition& at = cursor.position;
        for (std::int64_t i = 0; i < options.accumulation_steps && at.row < rows; ++i) {
            const std::int64_t size = std::min(options.batch_size, rows - at.row);
            step.micro_batches.push_back(make_batch(
                data,
                std::span(*cursor.order).subspan(static_cast<std::size_t>(at.row), static_cast<std::size_t>(size))));
            step.tokens += step.micro_batches.back().tokens;
            step.supervised_tokens += step.micro_batches.back().supervised_tokens;
            at.row += size;
        }
        if (at.row == rows) {
            at = {at.epoch + 1, 0};
            cursor.order = make_order(data, options, at.epoch);
        }
        return {std::move(step), std::move(cursor)};
    }

    static void check(const char* name, std::int64_t value) {
        constexpr std::int64_t largest = 1 << 30; // so that products fit
        if (value < 1 || value > largest) {
            throw OptionError(concat(name, ": found ", value, ", expected 1 to ", largest));
        }
    }
    static std::int64_t divide_up(std::int64_t value, std::int64_t by) { return (value + by - 1) / by; }

    const Dataset* data_;
    LoaderOptions options_;
    std::int64_t rows_ = 0; ///< of an epoch, those dropped excluded
    Cursor cursor_;
    std::shared_future<Prepared> ahead_; ///< the step at cursor_; shared, so that loaders can be copied
};

} // namespace lowrank
