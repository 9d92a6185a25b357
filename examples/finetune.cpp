// finetune: trains an adapter of any method, or all weights, of a GPT-2 on a data file.

#include <fmt/core.h>

#include "finetune/options.hpp"
#include "number.hpp"

namespace {

void add_options(CLI::App& app, examples::FinetuneOptions& o) {
    using examples::number;
    examples::add_model_options(app, o.model, false);
    examples::add_dtype_option(app, o.model);
    examples::add_quantization_options(app, o.model);
    app.add_option("--data", o.data, fmt::format("training data: {}", examples::data_help))->required();
    app.add_option("--output", o.output, "directory to write: the adapter, or with --method full the model")
        ->required();
    app.add_flag("--overwrite-output-dir", o.overwrite, "replace an output directory that exists");
    examples::add_data_options(app, o.choices);
    app.add_flag("--packing", o.packing, "put several rows into one of --max-seq-length; each sees only itself");
    app.add_flag("--group-by-length", o.loader.group_by_length, "rows of like length in one step, for less padding");
    app.add_option("--eval-data", o.eval_data, "data to evaluate on at the end");
    app.add_option("--eval-split", o.eval_split,
                   "evaluate on this part of --data instead, and train on the rest; 0: off")
        ->check(number(0.0, 0.999));
    examples::add_run_options(app, o);

    examples::add_adapter_options(app, o);
    app.add_option("--base-dropout", o.base_dropout, "dropout of the base model: as its config.json says, or none")
        ->check(CLI::IsMember({"config", "none"}));

    app.add_option("--learning-rate", o.adamw.learning_rate, "highest learning rate")->check(number(0.0));
    app.add_option("--loraplus-lr-ratio", o.loraplus_lr_ratio, "LoRA+: B learns this many times faster; 0: off")
        ->check(number(0.0));
    app.add_option("--lr-scheduler-type", o.scheduler, "how the learning rate goes on")
        ->check(CLI::IsMember({"constant", "constant_with_warmup", "linear", "cosine"}));
    app.add_option("--warmup-ratio", o.warmup_ratio, "part of the steps that warms up")->check(number(0.0, 1.0));
    app.add_option("--warmup-steps", o.warmup_steps, "steps that warm up")->check(number<std::int64_t>(0));
    app.add_option("--num-train-epochs", o.num_train_epochs, "epochs")->check(number(0.001, 1e6));
    app.add_option("--max-steps", o.max_steps, "steps, instead of epochs; 0: epochs count")
        ->check(number<std::int64_t>(0));
    examples::add_batch_options(app, o.loader, o.eval_batch_size);
    app.add_option("--adam-beta1", o.adamw.beta1, "AdamW's first beta")->check(number(0.0, 1.0));
    app.add_option("--adam-beta2", o.adamw.beta2, "AdamW's second beta")->check(number(0.0, 1.0));
    app.add_option("--adam-epsilon", o.adamw.epsilon, "AdamW's epsilon")->check(number(0.0));
    app.add_option("--weight-decay", o.adamw.weight_decay, "decoupled weight decay of every trained tensor")
        ->check(number(0.0));
    app.add_option("--max-grad-norm", o.max_grad_norm, "clip gradients to this norm; 0: do not")->check(number(0.0));
    app.add_flag("--gradient-checkpointing", o.gradient_checkpointing, "less memory for more time");
    examples::add_report_options(app, o);
    app.add_option("--seed", o.loader.seed, "seed of initial factors, shuffling and dropout")
        ->check(number<std::uint64_t>(0));
    app.add_flag("--no-shuffle", o.no_shuffle, "take the rows in the order of the file");
}

} // namespace

int main(int argc, char** argv) {
    examples::Program app(
        "Fine-tunes a GPT-2: an adapter (LoRA, DoRA, VeRA and others) that PEFT opens, or all weights.");
    examples::FinetuneOptions options;
    add_options(app, options);
    return app.run(argc, argv, [&] {
        return examples::with_dtype(
            options.model, [&]<class T>(std::type_identity<T>) { return examples::finetune<T>(options, app); });
    });
}
