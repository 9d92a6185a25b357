// What the machine can do at this moment: the yardsticks of every figure.
#pragma once

namespace bench {

/// GFLOP/s of independent fused multiply-adds of floats in registers, with the instruction set and on the threads that
/// kernels use. Takes some 10 ms.
double peak_gflops();

/// GFLOP/s of multiply-adds of bf16 that are summed in float, in registers: with the instructions for them where the
/// instruction set in use has some, or else those of floats.
double peak_bf16_gflops();

/// GFLOP/s of the products' register tile on operands in the first-level cache, on all threads: what a product can
/// reach at this moment. Where somebody else's hyperthread takes issue slots of the same cores this falls by a third,
/// and peak_gflops, which needs half of them, does not show it. Takes some 40 ms.
double tile_gflops();

/// GB/s of reading memory that no cache holds, on all threads. Takes some 50 ms.
double peak_read_gbs();

} // namespace bench
