// What the machine can do at this moment: the yardsticks of every figure.
#pragma once

namespace bench {

/// GFLOP/s of independent fused multiply-adds of floats in registers, with the instruction set and on the threads that
/// kernels use. Takes some 10 ms.
double peak_gflops();

/// GB/s of reading memory that no cache holds, on all threads. Takes some 50 ms.
double peak_read_gbs();

} // namespace bench
