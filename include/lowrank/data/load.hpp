// Loading a data file for training: from any format that it knows to rows of tokens and labels.
#pragma once

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <utility>

#include "lowrank/core/error.hpp"
#include "lowrank/data/columns.hpp"
#include "lowrank/data/example.hpp"
#include "lowrank/data/format.hpp"
#include "lowrank/data/pretokenized.hpp"
#include "lowrank/data/records.hpp"
#include "lowrank/data/source.hpp"
#include "lowrank/data/tokenize.hpp"

namespace lowrank {

/// How a data file becomes rows.
struct DataOptions {
    Columns columns;
    PromptTemplate prompt = PromptTemplate::alpaca(); ///< for instruction records
    std::int64_t max_seq_length = 1024;               ///< the most tokens of a row made from text; at most n_positions
    std::int64_t n_positions = std::numeric_limits<std::int32_t>::max(); ///< the most that the model takes
    std::int32_t vocab_size = std::numeric_limits<std::int32_t>::max();
};

/// Turns the segments of a row into tokens: encode_segments with some tokenizer.
using EncodeRow = std::function<Example(std::span<const Segment>)>;

namespace detail {

class DatasetLoader {
  public:
    DatasetLoader(const std::string& path, const DataOptions& options, const EncodeRow& encode)
        : path_(path),
          options_(options),
          encode_(encode) {
        if (options.max_seq_length < 2 || options.max_seq_length > options.n_positions) {
            throw OptionError(concat("max_seq_length: found ", options.max_seq_length, ", expected 2 to ",
                                     options.n_positions, ", the positions of the model (n_positions)"));
        }
        data_.files = {path};
    }

    Dataset load() {
        std::string extension = std::filesystem::path(path_).extension().string();
        std::transform(extension.begin(), extension.end(), extension.begin(),
                       [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
        if (extension == ".txt") {
            load_text();
        } else if (extension == ".json" || extension == ".jsonl") {
            for_each_record(path_, read_source(path_), [&](const Place& place, const json& value) {
                add_record(RecordView(value, options_.columns, place));
            });
        } else {
            throw FileError(
                concat(path_, ": found the file extension '", extension, "', expected .json, .jsonl or .txt"));
        }
        refuse_all_masked();
        return std::move(data_);
    }

  private:
    void load_text() {
        if (!options_.columns.renamed().empty()) {
            throw OptionError(concat("columns: found roles for ", path_, ", expected none for a text file"));
        }
        std::string text = read_source(path_);
        std::size_t kept = 0; // line ends are '\n', whatever the system that wrote the file
        for (std::size_t i = 0; i < text.size(); ++i) {
            if (text[i] != '\r' || i + 1 == text.size() || text[i + 1] != '\n') {
                text[kept++] = text[i];
            }
        }
        text.resize(kept);
        const Segment document{std::move(text), true, true};
        add_document(encoded({&document, 1}, path_), {0, 0, 1});
    }

    void add_record(const RecordView& record) {
        const Place& place = record.place();
        if (format_ == nullptr) {
            format_ = &detect_format(record.value(), options_.columns, place);
        }
        const Origin origin{0, place.line, place.record};
        if (format_->segments == nullptr) { // as it stands, even where nothing is supervised
            ++data_.counts.records;
            keep(example_of_tokens(record, options_.vocab_size, options_.n_positions), origin);
            return;
        }
        Example row = encoded(format_->segments(record, options_.prompt), place.str());
        if (format_->is_document) {
            add_document(row, origin);
            return;
        }
        ++data_.counts.records;
        const std::size_t cut = truncate(row, static_cast<std::size_t>(options_.max_seq_length));
        data_.counts.truncated += cut > 0;
        data_.counts.cut_tokens += cut;
        keep_supervised(std::move(row), origin);
    }

    void add_document(const Example& document, Origin origin) {
        ++data_.counts.records;
        for (Example& block : cut_into_blocks(document, static_cast<std::size_t>(options_.max_seq_length))) {
            keep_supervised(std::move(block), origin);
            origin.record += origin.line == 0; // the blocks of a text file are numbered
        }
    }

    void keep_supervised(Example&& row, const Origin& origin) {
        if (supervised_tokens(row) > 0) {
            keep(std::move(row), origin);
        } else {
            ++data_.counts.dropped;
            data_.counts.cut_tokens += row.input_ids.size();
        }
    }

    void keep(Example&& row, const Origin& origin) {
        data_.examples.push_back(std::move(row));
        data_.origins.push_back(origin);
    }

    Example encoded(std::span<const Segment> segments, const std::string& place) const {
        if (!encode_) {
            throw FileError(concat(place, ": found text, expected input_ids, because there is no tokenizer"));
        }
        Example row;
        try {
            row = encode_(segments);
        } catch (const OptionError& error) { // text that the tokenizer cannot take
            throw FileError(concat(place, ": ", error.what()));
        }
        for (const std::int32_t id : row.input_ids) {
            if (id < 0 || id >= options_.vocab_size) {
                throw FileError(concat(place, ": found the token id ", id, " after tokenizing, expected 0 to ",
                                       options_.vocab_size - 1, ": the tokenizer is not that of the model"));
            }
        }
        return row;
    }

    void refuse_all_masked() const {
        for (const Example& example : data_.examples) {
            if (supervised_tokens(example) > 0) {
                return;
            }
        }
        const DataCounts& counts = data_.counts;
        const auto reason =
            counts.truncated > 0 ? concat("the prompts fill max_seq_length ", options_.max_seq_length, " (raise it)")
            : format_ != nullptr && format_->segments == nullptr
                ? std::string("every label but the first of each row is -100, and the first is predicted by no token")
                : std::string("the texts are empty");
        throw FileError(concat(path_, ": all labels are masked: found no supervised token in ", counts.records,
                               " records, expected some: ", reason));
    }

    const std::string& path_;
    const DataOptions& options_;
    const EncodeRow& encode_;
    const RecordFormat* format_ = nullptr;
    Dataset data_;
};

} // namespace detail

/// Reads a data file: .txt is one document; .json and .jsonl hold records (a list, or one a line) of the format that
/// the first record shows (see record_formats()).
///
/// Rows made from text: a prompt is masked and its response supervised, with the end-of-sequence token; a row longer
/// than max_seq_length is truncated at its end (counted), and dropped when nothing supervised remains (counted); a
/// document is cut into consecutive rows instead. Pre-tokenized rows are used exactly as they stand and need no
/// tokenizer: `encode` is called for text only, so that it may load one then; when it is empty, text is refused.
///
/// Throws FileError naming file, line, record, key, what was found and expected, for anything malformed, and "all
/// labels are masked" when no row has a supervised token; OptionError for options that do not fit.
inline Dataset load_dataset(const std::string& path, const DataOptions& options, const EncodeRow& encode = {}) {
    return detail::DatasetLoader(path, options, encode).load();
}

/// The same with a tokenizer.
template <TextEncoder Tokenizer>
Dataset load_dataset(const std::string& path, const DataOptions& options, const Tokenizer& tokenizer) {
    return load_dataset(path, options, EncodeRow([&](std::span<const Segment> segments) {
                            return encode_segments(tokenizer, segments);
                        }));
}

} // namespace lowrank
