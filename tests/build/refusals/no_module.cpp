// Must not compile: a struct without fields is no module.
// Message: constraint|Module
#include <lowrank/nn/module.hpp>

struct Empty {};
Empty empty;
auto fields = lowrank::fields_of(empty);
