// evaluate's options.
#pragma once

#include <cstdint>
#include <string>

#include "data_options.hpp"
#include "model.hpp"

namespace examples {

struct EvaluateOptions {
    ModelOptions model;
    std::string data, tokens, logits;
    DataChoices choices;
    std::int64_t batch_size = 8, max_new_tokens = 64;
    bool bleu = false;
};

/// Evaluates with activations of type T. Returns the exit code. Defined for the types of model.hpp.
template <class T>
int evaluate(const EvaluateOptions& options);

} // namespace examples
