#include "evaluate.hpp"

template int examples::evaluate<lowrank::bf16>(const EvaluateOptions&);
