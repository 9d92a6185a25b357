// Included first, it keeps the heaviest kernels out of a translation unit, which then links lowrank::kernels: the
// library stays header-only without it, and a program of many units compiles faster with it.
#pragma once

#include "lowrank/backend/cpu/attention.hpp"
#include "lowrank/backend/cpu/matmul.hpp"

#define LOWRANK_KERNEL extern template
namespace lowrank {
#include "lowrank/backend/cpu/instances/attention.inc"
#include "lowrank/backend/cpu/instances/matmul.inc"
} // namespace lowrank
#undef LOWRANK_KERNEL
