// Must not compile: a tensor lives on a device.
// Message: DeviceTag|constraint
#include <lowrank/tensor/tensor.hpp>

lowrank::Tensor<float, int> x;
