// Must not compile: an embedding's table holds parameters.
// Message: embedding: the table's values must be of type compute_t<T>
#include <lowrank/ops/embedding.hpp>

auto f(const lowrank::Tensor<std::int32_t>& ids, const lowrank::WeightSlot<double, lowrank::Cpu>& table) {
    return lowrank::embedding<float>(ids, table);
}
