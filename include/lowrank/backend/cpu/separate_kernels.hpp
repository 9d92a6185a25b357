// Included first, it keeps the heaviest kernels out of a translation unit, which then links lowrank::kernels: the
// library stays header-only without it, and a program of many units compiles faster with it.
#pragma once

#include "lowrank/backend/cpu/adamw_8bit.hpp"
#include "lowrank/backend/cpu/arithmetic.hpp"
#include "lowrank/backend/cpu/attention.hpp"
#include "lowrank/backend/cpu/batched_matmul.hpp"
#include "lowrank/backend/cpu/cross_entropy.hpp"
#include "lowrank/backend/cpu/dropout.hpp"
#include "lowrank/backend/cpu/elementwise.hpp"
#include "lowrank/backend/cpu/layer_norm.hpp"
#include "lowrank/backend/cpu/matmul.hpp"
#include "lowrank/backend/cpu/optimizer.hpp"
#include "lowrank/backend/cpu/reduce.hpp"
#include "lowrank/backend/cpu/softmax.hpp"
#include "lowrank/math/affine.hpp"
#include "lowrank/math/apply.hpp"
#include "lowrank/quant/nf4_decode.hpp"
#include "lowrank/quant/nf4_dot.hpp"
#include "lowrank/quant/nf4_quantize.hpp"
#include "lowrank/tensor/copy_block.hpp"

#if !defined(LOWRANK_KERNEL) // lowrank::kernels itself defines it as `template`
#define LOWRANK_KERNEL extern template
namespace lowrank {
#include "lowrank/backend/cpu/instances/attention.inc"
#include "lowrank/backend/cpu/instances/elementwise.inc"
#include "lowrank/backend/cpu/instances/matmul.inc"
#include "lowrank/backend/cpu/instances/nf4.inc"
#include "lowrank/backend/cpu/instances/rows.inc"
} // namespace lowrank
#undef LOWRANK_KERNEL
#endif
