#include "generate.hpp"

template int examples::generate<float>(GenerateOptions&, const CLI::App&);
