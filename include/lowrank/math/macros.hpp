// How formulas are declared: inlined everywhere, and callable from CUDA device code when nvcc compiles them.
#pragma once

#if defined(__CUDACC__)
#define LOWRANK_HD __host__ __device__ __attribute__((always_inline)) inline
#else
#define LOWRANK_HD __attribute__((always_inline)) inline
#endif
