#include "finetune.hpp"

template int examples::finetune<lowrank::bf16>(FinetuneOptions&, const Program&);
