// QLoRA: training over NF4 follows PEFT's and bitsandbytes' own runs.

#include "lowrank/adapters/peft_files.hpp"
#include "lowrank/data/load.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"
#include "lowrank/train/trainer.hpp"
#include "models_testing.hpp"

using namespace lowrank;
using namespace lowrank::testing;

TEST_CASE("twenty steps over NF4 follow PEFT with bitsandbytes") {
    const Dataset rows = load_dataset(fixture("peft_data.jsonl").string(), {}, {});
    for (const std::string& name : fixtures_with("qlora_", "run.json")) {
        CAPTURE(name);
        const json run = read_json(fixture(name) / "run.json");
        const json& o = run.at("options");
        Gpt2<float> model = load_gpt2<float>(fixture("quant_gpt2_nf4"));
        load_adapter<float, Cpu>(model, fixture(name));
        AdamW<float> optimizer({trained_group<float>(model)}, {.learning_rate = o.at("learning_rate"),
                                                               .beta1 = o.at("adam_beta1"),
                                                               .beta2 = o.at("adam_beta2"),
                                                               .epsilon = o.at("adam_epsilon"),
                                                               .weight_decay = o.at("weight_decay")});
        DataLoader loader(rows, {.batch_size = o.at("per_device_train_batch_size"), .shuffle = false});
        TrainerOptions options;
        options.schedule = {schedule_from_name(o.at("lr_scheduler_type").get<std::string>()), o.at("warmup_steps"),
                            o.at("max_steps")};
        options.max_grad_norm = o.at("max_grad_norm");
        Trainer<float, Cpu, Gpt2<float>> trainer(model, loader, optimizer, options);
        REQUIRE(run.at("loss_fp64").size() == 20);
        for (std::size_t i = 0; i < 20; ++i) {
            CAPTURE(i);
            const StepMetrics metrics = trainer.step();
            for (const char* bits : {"fp32", "fp64"}) { // PEFT's own, and the decoded matrices in fp64
                const double loss = run.at(concat("loss_", bits))[i], norm = run.at(concat("grad_norm_", bits))[i];
                CHECK(std::abs(metrics.loss - loss) <= 1e-5 * loss);
                CHECK(std::abs(metrics.grad_norm - norm) <= 1e-4 * norm);
            }
        }
        const auto reference = SafetensorsFile::open((fixture(name) / "final.safetensors").string());
        const std::set<std::string> adapted = detail::adapted_layers<float, Cpu>(model);
        for (const NamedTensor<float, Cpu>& trained : trainable_tensors<float, Cpu>(model)) {
            CAPTURE(trained.name);
            CHECK(relative_error(trained.values, tensor_of(reference, detail::peft_key(trained.name, adapted))) <=
                  1e-4);
        }
    }
}
