#include "finetune.hpp"

template int examples::finetune<float>(FinetuneOptions&, const Program&);
