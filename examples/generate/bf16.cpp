#include "generate.hpp"

template int examples::generate<lowrank::bf16>(GenerateOptions&, const CLI::App&);
