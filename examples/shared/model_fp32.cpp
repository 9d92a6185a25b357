#include "model_functions.hpp"

EXAMPLES_MODEL_FUNCTIONS(float)
