#include "data_options.hpp"

#include <utility>
#include <vector>

#include <fmt/ranges.h>

#include "lowrank/data/describe.hpp"
#include "lowrank/io/atomic_file.hpp"
#include "lowrank/text/load_tokenizer.hpp"
#include "number.hpp"
#include "say.hpp"
#include "stored_template.hpp"

namespace examples {

void add_data_options(CLI::App& app, DataChoices& o) {
    app.add_option("--columns", o.columns, "columns by other names: instruction=question,output=answer");
    app.add_option("--template", o.text_template,
                   fmt::format("text around instructions and turns: {}, or a file; unless given, that of the adapter "
                               "or the model, or alpaca",
                               fmt::join(lowrank::TextTemplate::names(), ", ")));
    app.add_option("--separator", o.separator,
                   "a .txt has a prompt and its completion on each line, with this between them, such as ||");
    app.add_option("--max-seq-length", o.max_seq_length, "longest row made from text; 0: n_positions")
        ->check(number<std::int64_t>(0));
}

void add_batch_options(CLI::App& app, lowrank::LoaderOptions& loader, std::int64_t& eval_batch_size) {
    constexpr std::int64_t most_rows = 1 << 30;
    app.add_option("--per-device-train-batch-size", loader.batch_size, "rows of a micro-batch")
        ->check(number<std::int64_t>(1, most_rows));
    app.add_option("--per-device-eval-batch-size", eval_batch_size, "rows of a batch in evaluation")
        ->check(number<std::int64_t>(1, most_rows));
    app.add_option("--gradient-accumulation-steps", loader.accumulation_steps, "micro-batches of a step")
        ->check(number<std::int64_t>(1, most_rows));
}

DataReader::DataReader(const DataChoices& choices, const ModelOptions& model, const std::string& adapter,
                       const lowrank::Gpt2Config& config)
    : model_(model.model),
      is_chosen_(!choices.text_template.empty()) {
    options_.columns = lowrank::Columns::parse(choices.columns);
    options_.separator = choices.separator;
    options_.n_positions = config.n_positions;
    options_.max_seq_length = choices.max_seq_length ? choices.max_seq_length : config.n_positions;
    options_.vocab_size = static_cast<std::int32_t>(config.vocab_size);
    if (is_chosen_) {
        options_.text_template = lowrank::TextTemplate::find(choices.text_template);
    } else if (const auto stored = stored_template({adapter, model.model})) {
        options_.text_template = *stored;
    }
}

lowrank::Dataset DataReader::read(const std::string& path) {
    lowrank::Dataset data = lowrank::load_dataset(path, options_, [&](std::span<const lowrank::Segment> segments) {
        return lowrank::encode_segments(tokenizer(), segments);
    });
    const lowrank::DataCounts& counts = data.counts;
    say(stderr, "{}: {} rows from {} records", path, data.size(), counts.records);
    if (counts.truncated + counts.dropped > 0) {
        say(stderr, ", {} truncated at {} tokens, {} dropped without a supervised token, {} tokens lost",
            counts.truncated, options_.max_seq_length, counts.dropped, counts.cut_tokens);
    }
    say(stderr, "\n");
    uses_template_ = uses_template_ || data.is_templated;
    return data;
}

lowrank::DatasetSplit DataReader::read_split(const std::string& data, const std::string& eval_data, double eval_split,
                                             std::uint64_t seed) {
    lowrank::DatasetSplit split;
    split.train = read(data);
    if (!eval_data.empty()) {
        split.eval = read(eval_data);
    } else if (eval_split > 0) {
        split = lowrank::split_dataset(std::move(split.train), eval_split, seed);
    }
    return split;
}

void DataReader::check_template() const {
    if (is_chosen_ && !uses_template_) {
        throw lowrank::OptionError("--template: found data whose text stands as it is, expected instructions or "
                                   "conversations (--columns instruction=…,output=… makes them of other records)");
    }
    std::vector<std::string> plain;
    if (uses_template_ && options_.text_template.chat()) {
        for (const std::string& marker : options_.text_template.chat()->markers()) {
            if (!tokenizer_->token_id(marker)) {
                plain.push_back(marker);
            }
        }
    }
    if (!plain.empty()) {
        say(stderr, "template: no tokens of this model, and written as plain text: {}\n", fmt::join(plain, " "));
    }
}

void DataReader::save_template(const std::filesystem::path& directory) const {
    if (uses_template_) {
        lowrank::write_atomically(directory / template_file, options_.text_template.to_json());
    }
}

std::string DataReader::describe(const lowrank::Dataset& data) const {
    if (!tokenizer_) {
        return lowrank::describe_sample(data, 0);
    }
    return lowrank::describe_sample(data, 0,
                                    [&](std::span<const std::int32_t> ids) { return tokenizer_->decode(ids); });
}

std::string DataReader::text(std::span<const std::int32_t> ids) const {
    return tokenizer_ ? tokenizer_->decode(ids) : fmt::format("{}", fmt::join(ids, " "));
}

std::optional<std::int32_t> DataReader::eos_id() const {
    return tokenizer_ ? tokenizer_->eos_id() : std::nullopt;
}

const lowrank::Tokenizer& DataReader::tokenizer() {
    const std::scoped_lock lock(mutex_);
    if (!tokenizer_) {
        tokenizer_ = std::make_unique<lowrank::Tokenizer>(lowrank::Tokenizer::load(model_));
    }
    return *tokenizer_;
}

} // namespace examples
