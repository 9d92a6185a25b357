// A file of prompts for generate, and the file of their answers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "lowrank/generate/generate.hpp"
#include "lowrank/io/json.hpp"
#include "prompt.hpp"

namespace examples {

/// Prompts with the records that they came from.
struct PromptFile {
    std::vector<lowrank::json> records;
    std::vector<Prompt> prompts;
};

/// Reads .json or .jsonl, records with a prompt, or with an instruction and perhaps an input; or any other file, a
/// prompt a line. Blank lines do not count. Throws FileError that names the line.
PromptFile read_prompts(const std::string& path, const PromptMaker& maker);

/// Continues many prompts: lowrank::generate_batch with a model and options.
using BatchGenerator = std::function<void(std::span<const std::vector<std::int32_t>> prompts,
                                          const std::function<bool(std::size_t, std::int32_t)>& on_token,
                                          const std::function<bool(std::size_t, lowrank::StopReason)>& on_end)>;

/// Answers the prompts and writes each record with its response, one a line and in order: to the file `output`, or as
/// soon as they are there to standard output. An interrupt ends it, and writes the answers that are complete. Returns
/// the exit code.
int answer_prompts(const BatchGenerator& generate, const lowrank::Tokenizer& tokenizer, const PromptFile& file,
                   const std::string& output);

} // namespace examples
