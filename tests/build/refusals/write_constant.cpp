// Must not compile: a tensor that is constant is not written.
// Message: discards qualifiers|not marked const|passing 'const
#include <lowrank/tensor/tensor.hpp>

float* f(const lowrank::Tensor<float>& x) {
    return x.mutable_data();
}
