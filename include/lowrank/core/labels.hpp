// Labels: the one value with a meaning of its own.
#pragma once

#include <cstdint>

namespace lowrank {

/// The label of a position that is not supervised (the value that PyTorch and Transformers use).
inline constexpr std::int32_t ignored_label = -100;

} // namespace lowrank
