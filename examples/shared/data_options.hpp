// The options that say what data is and how it becomes rows, and the reading itself: finetune and evaluate share them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>

#include <CLI/CLI.hpp>

#include "lowrank/data/load.hpp"
#include "lowrank/data/loader.hpp"
#include "lowrank/data/order.hpp"
#include "lowrank/models/gpt2_config.hpp"
#include "lowrank/text/tokenizer.hpp"
#include "model.hpp"

namespace examples {

/// What a data file holds: its kinds, for --help.
inline constexpr const char* data_help = ".json, .jsonl or .csv: instructions, conversations, prompts with "
                                         "completions, texts or token ids; or .txt";

struct DataChoices {
    std::string columns, text_template, separator;
    std::int64_t max_seq_length = 0;
};

void add_data_options(CLI::App& app, DataChoices& o);

/// How many rows a micro-batch, an evaluation's batch and a step have.
void add_batch_options(CLI::App& app, lowrank::LoaderOptions& loader, std::int64_t& eval_batch_size);

/// Reads data files with the model's limits; the tokenizer is loaded for text only.
class DataReader {
  public:
    /// `adapter` is where a template may lie that goes before the model's; "" for none.
    DataReader(const DataChoices& choices, const ModelOptions& model, const std::string& adapter,
               const lowrank::Gpt2Config& config);

    /// The rows of a file, with a line about it on standard error.
    lowrank::Dataset read(const std::string& path);

    /// The rows of a training file, and those to evaluate on: of a file of their own, or where `eval_data` is empty a
    /// part `eval_split` of the first, which trains without them. None where that is 0.
    lowrank::DatasetSplit read_split(const std::string& data, const std::string& eval_data, double eval_split,
                                     std::uint64_t seed);

    /// To be called when all files are read. A template that was asked for and has no say is a slip; markers that are
    /// no tokens are allowed, but worth a word.
    void check_template() const;

    /// Stores the template, where one was used, beside what was trained with it.
    void save_template(const std::filesystem::path& directory) const;

    /// The first row with its mask.
    std::string describe(const lowrank::Dataset& data) const;

    /// The text of ids, or without a tokenizer the ids themselves.
    std::string text(std::span<const std::int32_t> ids) const;

    std::optional<std::int32_t> eos_id() const;

    std::int64_t max_seq_length() const { return options_.max_seq_length; }

  private:
    /// Loaded when it is first asked for, by whichever thread.
    const lowrank::Tokenizer& tokenizer();

    std::string model_;
    bool is_chosen_, uses_template_ = false;
    lowrank::DataOptions options_;
    std::mutex mutex_;
    std::unique_ptr<lowrank::Tokenizer> tokenizer_;
};

} // namespace examples
