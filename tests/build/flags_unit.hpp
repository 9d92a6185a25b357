// The functions of flags_unit.cpp, which is compiled once for each.
#pragma once

#include <vector>

/// The losses of 20 steps of the same training, by code compiled with the compiler's default flags, with -mavx2 -mfma
/// and with -march=native.
std::vector<float> train_default();
std::vector<float> train_avx2();
std::vector<float> train_native();
