#include "evaluate.hpp"

template int examples::evaluate<float>(const EvaluateOptions&);
