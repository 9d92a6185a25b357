// demo: teaches the little GPT-2 of this repository a new way to answer, with LoRA, and scores it before and after.

#include <algorithm>
#include <chrono>

#include "lowrank/adapters/peft_files.hpp"
#include "lowrank/data/load.hpp"
#include "lowrank/generate/generate.hpp"
#include "lowrank/io/atomic_directory.hpp"
#include "lowrank/text/load_tokenizer.hpp"
#include "lowrank/train/trainer.hpp"
#include "model.hpp"
#include "number.hpp"
#include "output.hpp"
#include "program.hpp"
#include "say.hpp"

using namespace lowrank;

namespace {

struct Options {
    std::string demo = LOWRANK_DEMO_DIRECTORY, output = "demo-adapter";
    examples::ModelOptions model;
    LoraConfig lora;
    AdamWOptions adamw{.learning_rate = 5e-3, .weight_decay = 0};
    LoaderOptions loader{.batch_size = 16};
    double num_train_epochs = 8;
    std::int64_t shown = 5;
};

// What must come out: few exact answers before, most after.
constexpr double most_before = 0.1, least_after = 0.8;

/// A prompt that was held out from training, and its one right answer.
struct Task {
    std::string prompt, expected;
};

std::string trimmed(const std::string& text) {
    const std::size_t begin = text.find_first_not_of(" \n");
    return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(" \n") + 1 - begin);
}

std::vector<Task> read_tasks(const std::string& path) {
    std::vector<Task> tasks;
    for_each_record(path, read_source(path), [&](const Place& place, const json& value) {
        JsonReader record(value, place.str());
        Task task{record.get_string("prompt"), ""};
        task.expected = trimmed(record.get_string("completion"));
        tasks.push_back(std::move(task));
    });
    return tasks;
}

/// The most likely continuation of a prompt, up to the end of its line.
std::string answer(const examples::Model& model, const Tokenizer& tokenizer, const std::string& prompt) {
    constexpr std::int64_t longest = 24;
    const std::vector<std::int32_t> ids = tokenizer.encode(prompt);
    std::vector<std::int32_t> answered;
    Sampler sampler({.greedy = true});
    generate(model, std::span<const std::int32_t>(ids), longest, tokenizer.eos_id(), sampler, [&](std::int32_t id) {
        answered.push_back(id);
        return tokenizer.decode(answered).find('\n') == std::string::npos;
    });
    return trimmed(tokenizer.decode(answered));
}

std::vector<std::string> answers(const examples::Model& model, const Tokenizer& tokenizer,
                                 const std::vector<Task>& tasks) {
    std::vector<std::string> texts;
    for (const Task& task : tasks) {
        texts.push_back(answer(model, tokenizer, task.prompt));
    }
    return texts;
}

std::size_t exact(const std::vector<Task>& tasks, const std::vector<std::string>& given) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < tasks.size(); ++i) {
        count += given[i] == tasks[i].expected;
    }
    return count;
}

/// Trains the adapter, telling how the loss falls. Returns the seconds that it took.
double train(examples::Model& model, const Dataset& data, const Options& options) {
    DataLoader loader(data, options.loader);
    const std::int64_t steps = steps_for_epochs(loader, options.num_train_epochs);
    AdamW<float> optimizer({trained_group<float>(model)}, options.adamw);
    TrainerOptions settings;
    settings.schedule = {ScheduleKind::cosine, warmup_step_count(steps, 0, 0.1), steps};
    settings.seed = options.loader.seed;
    Trainer<float, Cpu, examples::Model> trainer(model, loader, optimizer, settings);
    const std::int64_t every = std::max<std::int64_t>(1, steps / 10);
    const auto start = std::chrono::steady_clock::now();
    double seconds = 0, tokens = 0, loss = 0;
    for (std::int64_t step = 1, since = 0; step <= steps; ++step) {
        const StepMetrics metrics = trainer.step();
        seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        tokens += static_cast<double>(metrics.tokens);
        loss += metrics.loss;
        ++since;
        if (step == 1 || step % every == 0 || step == steps) {
            examples::say(stdout, "step {:3}/{}  loss {:.4f}  learning rate {:.5f}  {:5.0f} tokens/s  {:4.1f} s\n",
                          step, steps, loss / double(since), metrics.learning_rate, tokens / seconds, seconds);
            std::fflush(stdout);
            loss = 0;
            since = 0;
        }
    }
    return seconds;
}

int demo(Options& options) {
    namespace fs = std::filesystem;
    const fs::path directory = fs::weakly_canonical(fs::absolute(options.demo));
    options.model.model = (directory / "model").string();
    examples::check_output(options.output, fs::exists(fs::path(options.output) / "adapter_config.json"),
                           {{"--demo-directory", directory.string()}});
    examples::Model model = examples::load_model(options.model);
    const Tokenizer tokenizer = Tokenizer::load(options.model.model);
    DataOptions data_options;
    data_options.max_seq_length = data_options.n_positions = model.config.n_positions;
    data_options.vocab_size = static_cast<std::int32_t>(model.config.vocab_size);
    const Dataset data = load_dataset((directory / "train.jsonl").string(), data_options, tokenizer);
    const std::vector<Task> tasks = read_tasks((directory / "held_out.jsonl").string());
    const auto shown =
        static_cast<std::size_t>(std::clamp<std::int64_t>(options.shown, 0, static_cast<std::int64_t>(tasks.size())));

    examples::say(
        stdout,
        "A GPT-2 of {} layers knows the people of a little village and answers questions in whole sentences.\n"
        "LoRA teaches it to give the bare answer, from {} examples about some of the people. {} prompts about\n"
        "the others are held out. The model before training, greedy:\n\n",
        model.config.n_layer, data.size(), tasks.size());
    const std::vector<std::string> before = answers(model, tokenizer, tasks);
    for (std::size_t i = 0; i < shown; ++i) {
        examples::say(stdout, "{} {}\n", tasks[i].prompt, before[i]);
    }

    options.lora.target_modules = "all-linear";
    options.lora.base_model_name_or_path = options.model.model;
    attach_lora<float, Cpu>(model, options.lora, options.loader.seed);
    examples::say(stdout, "\n{}\n", describe(count_parameters<float, Cpu>(model)));
    const double seconds = train(model, data, options);

    const std::vector<std::string> after = answers(model, tokenizer, tasks);
    examples::say(stdout, "\nThe same prompts after {:.0f} seconds of training:\n\n", seconds);
    for (std::size_t i = 0; i < shown; ++i) {
        const bool right = after[i] == tasks[i].expected;
        examples::say(stdout, "{} {}{}\n", tasks[i].prompt, after[i],
                      right ? "" : "  (expected: " + tasks[i].expected + ")");
    }
    const std::size_t count_before = exact(tasks, before), count_after = exact(tasks, after);
    const auto total = static_cast<double>(tasks.size());
    examples::say(stdout, "\nexact answers on {} held-out prompts: {} before, {} after\n\n", tasks.size(), count_before,
                  count_after);

    AtomicDirectory output(options.output);
    save_adapter<float, Cpu>(model, options.lora, output.path());
    output.commit();
    for (const auto& file : fs::directory_iterator(output.target())) {
        examples::say(stdout, "wrote {} ({} bytes)\n", file.path().string(), file.file_size());
    }
    const std::string adapter = output.target().string();
    examples::say(stdout,
                  "\nAsk it yourself:\n"
                  "  printf '{2}' | ./generate --prompt - --greedy --model {0} --adapter {1}\n"
                  "\nOpen it in PEFT:\n"
                  "  from transformers import AutoModelForCausalLM\n"
                  "  from peft import PeftModel\n"
                  "  model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(\"{0}\"), \"{1}\")\n",
                  options.model.model, adapter, "Question: Where does Mia live?\\nAnswer:");
    if (double(count_before) > most_before * total || double(count_after) < least_after * total) {
        examples::say(stderr, "error: expected at most {:.0f} exact answers before and at least {:.0f} after\n",
                      most_before * total, least_after * total);
        return 1;
    }
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    using examples::number;
    examples::Program app("Trains a LoRA adapter in under a minute and shows what it changes. Needs no arguments.");
    Options options;
    options.lora.lora_alpha = 16;
    app.add_option("--demo-directory", options.demo, "model, train.jsonl and held_out.jsonl");
    app.add_option("--output", options.output, "directory for the adapter; that of an earlier demo is replaced");
    app.add_option("--threads", options.model.threads, "threads; 0 takes all CPUs")->check(number<int>(0, 1024));
    app.add_option("--r", options.lora.r, "rank")->check(number<std::int64_t>(1, 1024));
    app.add_option("--learning-rate", options.adamw.learning_rate, "highest learning rate")->check(number(0.0));
    app.add_option("--num-train-epochs", options.num_train_epochs, "passes over the examples")
        ->check(number(0.0, 1000.0));
    app.add_option("--per-device-train-batch-size", options.loader.batch_size, "rows of a batch")
        ->check(number<std::int64_t>(1, 4096));
    app.add_option("--show", options.shown, "held-out prompts to show")->check(number<std::int64_t>(0));
    app.add_option("--seed", options.loader.seed, "seed of factors and order")->check(number<std::uint64_t>(0));
    return app.run(argc, argv, [&] { return demo(options); });
}
