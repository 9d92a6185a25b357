#include "memory.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdio>

#include "lowrank/train/process_memory.hpp"
#include "say.hpp"

namespace examples {

LargestBatch::LargestBatch(const lowrank::Dataset& data, std::int64_t batch_size)
    : rows(std::min<std::int64_t>(batch_size, std::ssize(data.examples))),
      length(0) {
    for (const lowrank::Example& row : data.examples) {
        length = std::max<std::int64_t>(length, std::ssize(row.input_ids));
    }
}

double tell_memory(const lowrank::TrainingMemory& memory, const LargestBatch& batch, double other_mb) {
    constexpr double mb = 1e6;
    const double total = memory.total() / mb + other_mb;
    say(stdout,
        "memory for steps of {} x {} tokens: about {:.0f} MB (weights {:.0f}, trained {:.0f}, activations {:.0f}, "
        "transient {:.0f}, program and data {:.0f})\n",
        batch.rows, batch.length, total, memory.weights / mb, memory.trained / mb, memory.activations / mb,
        memory.transient / mb, other_mb);
    std::fflush(stdout); // before a step that may be too much
    const double left = lowrank::available_memory_mb();
    if (left > 0 && total > left + lowrank::resident_memory_mb()) {
        say(stderr,
            "notice: the machine has {:.0f} MB of memory left, which may not be enough: a smaller "
            "--per-device-train-batch-size, --gradient-checkpointing or --dtype bf16 takes less\n",
            left);
    }
    return total;
}

} // namespace examples
