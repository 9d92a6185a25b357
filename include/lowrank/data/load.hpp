// Loading a data file for training: from any format that it knows to rows of tokens and labels.
#pragma once

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/core/parallel.hpp"
#include "lowrank/data/columns.hpp"
#include "lowrank/data/csv.hpp"
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
    /// The text around instructions and turns (Dataset::is_templated says whether there were any).
    TextTemplate text_template = TextTemplate::named("alpaca");
    /// Of a text file with a prompt and its completion on each line: what stands between them, such as "||". The prompt
    /// ends with it. Empty: a text file is one document.
    std::string separator{};
    std::int64_t max_seq_length = 1024; ///< the most tokens of a row made from text; at most n_positions
    std::int64_t n_positions = std::numeric_limits<std::int32_t>::max(); ///< the most that the model takes
    std::int32_t vocab_size = std::numeric_limits<std::int32_t>::max();
};

/// Turns the segments of a row into tokens: encode_segments with some tokenizer. Several threads call it at once.
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
        const auto add = [&](const Place& place, const json& value) {
            add_record(RecordView(value, options_.columns, place));
        };
        if (extension != ".txt" && !options_.separator.empty()) {
            throw OptionError(concat("separator: found one for ", path_, ", expected none but for a text file"));
        }
        if (extension == ".txt") {
            load_text();
        } else if (extension == ".json" || extension == ".jsonl") {
            for_each_record(path_, read_source(path_), add);
        } else if (extension == ".csv") {
            for_each_csv_record(path_, read_source(path_), add);
        } else {
            throw FileError(
                concat(path_, ": found the file extension '", extension, "', expected .json, .jsonl, .csv or .txt"));
        }
        encode_pending();
        refuse_all_masked();
        return std::move(data_);
    }

  private:
    /// A row before it is tokenized.
    struct Pending {
        RowText text;
        Place place;
    };

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
        if (!options_.separator.empty()) {
            load_lines(text);
            return;
        }
        is_document_ = true;
        ++data_.counts.records;
        add_row({{std::move(text), true, true}}, {&path_, 0, 1});
    }

    /// Prompts and completions, one a line.
    void load_lines(std::string_view text) {
        Place place{&path_, 0, 0};
        for (std::size_t at = 0; at < text.size();) {
            const std::string_view line = text.substr(at, text.find('\n', at) - at);
            at += line.size() + 1;
            ++place.line;
            if (line.empty()) {
                continue;
            }
            ++place.record;
            const std::size_t found = line.find(options_.separator);
            if (found == line.npos) {
                throw FileError(concat(place, ": found no ", in_quotes(options_.separator), ", expected prompt",
                                       options_.separator, "completion"));
            }
            const std::size_t end = found + options_.separator.size();
            ++data_.counts.records;
            add_row({{std::string(line.substr(0, end))}, {std::string(line.substr(end)), true, true}}, place);
        }
    }

    void add_record(const RecordView& record) {
        const Place& place = record.place();
        if (format_ == nullptr) {
            format_ = &detect_format(record.value(), options_.columns, place);
            is_document_ = format_->is_document;
            data_.is_templated = format_->is_templated;
        }
        ++data_.counts.records;
        if (format_->rows == nullptr) { // as it stands, even where nothing is supervised
            keep(example_of_tokens(record, options_.vocab_size, options_.n_positions), {0, place.line, place.record});
            return;
        }
        for (RowText& row : format_->rows(record, options_.text_template)) {
            add_row(std::move(row), place);
        }
    }

    void add_row(RowText text, const Place& place) {
        constexpr std::size_t rows_at_once = 1024; // few enough that their text needs no memory to speak of
        pending_.push_back({std::move(text), place});
        if (pending_.size() == rows_at_once) {
            encode_pending();
        }
    }

    /// Tokenizes on all threads; rows come in their order, and of several errors the first.
    void encode_pending() {
        std::vector<Example> rows(pending_.size());
        std::vector<std::exception_ptr> errors(pending_.size());
        parallel_chunks(static_cast<std::int64_t>(rows.size()), 16, [&](std::int64_t begin, std::int64_t end) {
            for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
                try {
                    rows[i] = encoded(pending_[i].text, pending_[i].place);
                } catch (...) {
                    errors[i] = std::current_exception();
                }
            }
        });
        for (std::size_t i = 0; i < rows.size(); ++i) {
            if (errors[i]) {
                std::rethrow_exception(errors[i]);
            }
            const Place& place = pending_[i].place;
            finish_row(std::move(rows[i]), {0, place.line, place.record});
        }
        pending_.clear();
    }

    void finish_row(Example row, Origin origin) {
        if (is_document_) {
            add_document(row, origin);
            return;
        }
        const std::size_t cut = truncate(row, static_cast<std::size_t>(options_.max_seq_length));
        data_.counts.truncated += cut > 0;
        data_.counts.cut_tokens += cut;
        keep_supervised(std::move(row), origin);
    }

    void add_document(const Example& document, Origin origin) {
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

    Example encoded(std::span<const Segment> segments, const Place& at) const {
        const std::string place = at.line == 0 ? path_ : at.str();
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
            : format_ != nullptr && format_->rows == nullptr
                ? std::string("every label but the first of each row is -100, and the first is predicted by no token")
                : std::string("the texts are empty");
        throw FileError(concat(path_, ": all labels are masked: found no supervised token in ", counts.records,
                               " records, expected some: ", reason));
    }

    const std::string& path_;
    const DataOptions& options_;
    const EncodeRow& encode_;
    const RecordFormat* format_ = nullptr;
    bool is_document_ = false;
    std::vector<Pending> pending_;
    Dataset data_;
};

} // namespace detail

/// Reads a data file: .txt is one document, or with a separator one prompt and its completion a line; .json and .jsonl
/// (a list, or one a line) and .csv hold records of the format that the first record shows (see record_formats()).
///
/// Rows made from text: a prompt is masked and its response supervised, with the end-of-sequence token, and of a
/// conversation all that the assistant says; a row longer
/// than max_seq_length is truncated at its end (counted), and dropped when nothing supervised remains (counted); a
/// document is cut into consecutive rows instead. Pre-tokenized rows are used exactly as they stand and need no
/// tokenizer: `encode` is called for text only, on several threads, so that it may load one then; when it is empty,
/// text is refused.
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
