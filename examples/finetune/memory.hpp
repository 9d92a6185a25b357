// The memory that a run is going to take, told before it begins.
#pragma once

#include <cstdint>

#include "lowrank/data/example.hpp"
#include "lowrank/models/gpt2_memory.hpp"

namespace examples {

/// The largest micro-batch that a dataset gives.
struct LargestBatch {
    std::int64_t rows, length;

    LargestBatch(const lowrank::Dataset& data, std::int64_t batch_size);
};

/// Prints the estimate on standard output, and a notice on standard error where the machine has less. `other_mb` is
/// what the program and its data take. Returns the sum, in megabytes.
double tell_memory(const lowrank::TrainingMemory& memory, const LargestBatch& batch, double other_mb);

} // namespace examples
