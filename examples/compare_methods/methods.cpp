#include "methods.hpp"

#include <algorithm>

namespace examples {

std::vector<Method> all_methods(std::int64_t rank, double alpha, std::int64_t steps) {
    lowrank::LoraConfig lora;
    lora.target_modules = "all-linear";
    lora.r = rank;
    lora.lora_alpha = alpha;
    lowrank::LoraConfig rslora = lora, dora = lora, lora_fa = lora;
    rslora.use_rslora = true;
    dora.use_dora = true;
    lora_fa.freeze_a = true;
    lowrank::VeraConfig vera;
    vera.target_modules = "all-linear";
    lowrank::Ia3Config ia3; // on the layers that PEFT chooses
    lowrank::AdaLoraConfig adalora;
    adalora.target_modules = "all-linear";
    adalora.init_r = (3 * rank + 1) / 2;
    adalora.target_r = rank;
    adalora.lora_alpha = alpha;
    adalora.total_step = steps;
    adalora.tinit = steps / 10;
    adalora.tfinal = std::max<std::int64_t>(steps / 4, std::min<std::int64_t>(1, steps - 1));
    using lowrank::AdapterConfig;
    // Learning rates in units of LoRA's. What is multiplied by more learns as fast at a lower rate (rsLoRA), and
    // factors that are numbers and not matrices need a higher one (VeRA, IA3).
    return {{"lora", AdapterConfig(lora)},       {"rslora", AdapterConfig(rslora), 0.5},
            {"dora", AdapterConfig(dora)},       {"lora+", AdapterConfig(lora), 0.2, 16},
            {"vera", AdapterConfig(vera), 4},    {"ia3", AdapterConfig(ia3), 4},
            {"lora-fa", AdapterConfig(lora_fa)}, {"adalora", AdapterConfig(adalora), 2},
            {"full", FullFineTuning(), 0.2},     {"qlora", AdapterConfig(lora), 1, 0, true}};
}

std::vector<std::string> method_names() {
    std::vector<std::string> names;
    for (const Method& method : all_methods(1, 1, 2)) {
        names.push_back(method.name);
    }
    return names;
}

} // namespace examples
