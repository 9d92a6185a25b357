#include "prompt_file.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>
#include <unistd.h>
#include <utility>

#include "lowrank/data/record_view.hpp"
#include "lowrank/data/source.hpp"
#include "lowrank/generate/text_stream.hpp"
#include "lowrank/io/atomic_file.hpp"
#include "lowrank/train/interrupt.hpp"
#include "say.hpp"

namespace examples {

namespace {

/// How far the answers are, on standard error: a live line on a terminal, else a line every ten seconds.
class AnswerProgress {
  public:
    explicit AnswerProgress(std::size_t prompts) : prompts_(prompts) {}

    void add_token() { ++tokens_; }
    void add_answer() {
        ++answers_;
        const Clock::time_point now = Clock::now();
        if (live_ || now - shown_ > std::chrono::seconds(10)) {
            shown_ = now;
            say(stderr, "{}{}{}", live_ ? "\r\033[K" : "", line(), live_ ? "" : "\n");
        }
    }
    void finish() const { say(stderr, "{}{}\n", live_ ? "\r\033[K" : "", line()); }

  private:
    using Clock = std::chrono::steady_clock;

    std::string line() const {
        const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
        return fmt::format("{} of {} prompts answered: {} tokens in {:.1f} s, {:.1f} tokens/s", answers_, prompts_,
                           tokens_, seconds, static_cast<double>(tokens_) / std::max(seconds, 1e-9));
    }

    std::size_t prompts_, answers_ = 0;
    std::int64_t tokens_ = 0;
    bool live_ = isatty(STDERR_FILENO) != 0;
    Clock::time_point start_ = Clock::now(), shown_ = start_;
};

} // namespace

PromptFile read_prompts(const std::string& path, const PromptMaker& maker) {
    PromptFile file;
    const auto add = [&](const lowrank::Place& place, const lowrank::json& record) {
        const lowrank::Columns names;
        const lowrank::RecordView view(record, names, place);
        const bool is_instruction = view.find("instruction") != nullptr;
        if (is_instruction && view.find("prompt") != nullptr) {
            view.refuse("prompt", "a prompt beside an instruction", "one of the two");
        }
        try {
            file.prompts.push_back(is_instruction
                                       ? maker.of_instruction(view.text("instruction"), view.text_or_empty("input"))
                                       : maker.of_text(view.text("prompt")));
        } catch (const lowrank::OptionError& error) {
            throw lowrank::FileError(lowrank::concat(place, ": ", error.what()));
        }
        file.records.push_back(record);
    };
    const std::string text = lowrank::read_source(path);
    if (const std::string kind = std::filesystem::path(path).extension(); kind == ".json" || kind == ".jsonl") {
        lowrank::for_each_record(path, text, add);
        return file;
    }
    lowrank::Place place{&path, 0, 0};
    for (std::size_t at = 0, end = 0; at < text.size(); at = end + 1) {
        end = std::min(text.find('\n', at), text.size());
        ++place.line;
        std::string line = text.substr(at, end - at);
        line.erase(line.find_last_not_of('\r') + 1);
        if (line.find_first_not_of(" \t") != line.npos) {
            ++place.record;
            add(place, {{"prompt", line}});
        }
    }
    if (file.prompts.empty()) {
        throw lowrank::FileError(path + ": found only white space, expected a prompt a line");
    }
    return file;
}

int answer_prompts(const BatchGenerator& generate, const lowrank::Tokenizer& tokenizer, const PromptFile& file,
                   const std::string& output) {
    struct Answer {
        lowrank::TextStream stream;
        std::string text{};
    };
    std::optional<lowrank::AtomicFile> target;
    if (!output.empty()) {
        target.emplace(output);
    }
    const auto write = [&](const std::string& line) {
        if (target) {
            target->write(line);
        } else {
            std::fwrite(line.data(), 1, line.size(), stdout);
            std::fflush(stdout);
        }
    };
    std::vector<std::vector<std::int32_t>> ids;
    for (const Prompt& prompt : file.prompts) {
        ids.push_back(prompt.ids);
    }
    std::map<std::size_t, Answer> growing;
    std::map<std::size_t, std::string> done; // lines that wait for those before them
    std::size_t written = 0;
    AnswerProgress progress(ids.size());
    const lowrank::InterruptGuard interrupt;
    const auto on_token = [&](std::size_t i, std::int32_t id) {
        const Prompt& prompt = file.prompts[i];
        Answer& answer =
            growing.try_emplace(i, Answer{lowrank::TextStream(tokenizer, prompt.stop, prompt.lead)}).first->second;
        answer.text += answer.stream.push(id);
        progress.add_token();
        return !answer.stream.stopped() && !interrupt.requested();
    };
    const auto on_end = [&](std::size_t i, lowrank::StopReason reason) {
        if (reason == lowrank::StopReason::callback && interrupt.requested()) {
            return false;
        }
        nlohmann::ordered_json record;
        for (const auto& [key, value] : file.records[i].items()) {
            record[key] = value;
        }
        record["response"] = "";
        if (const auto answer = growing.find(i); answer != growing.end()) {
            const bool has_rest = reason != lowrank::StopReason::callback;
            record["response"] = answer->second.text + (has_rest ? answer->second.stream.finish() : "");
            growing.erase(answer);
        }
        const bool has_length = reason == lowrank::StopReason::max_new_tokens || //
                                reason == lowrank::StopReason::n_positions;
        record["finish_reason"] = has_length ? "length" : "stop";
        progress.add_answer();
        done[i] = record.dump() + "\n";
        for (auto next = done.begin(); next != done.end() && next->first == written; next = done.erase(next)) {
            write(next->second);
            ++written;
        }
        return std::ferror(stdout) == 0 && !interrupt.requested();
    };
    generate(ids, on_token, on_end);
    for (const auto& [number, line] : done) { // only after an interrupt
        write(line);
    }
    if (target) {
        target->commit();
    }
    progress.finish();
    return interrupt.requested() ? 130 : 0;
}

} // namespace examples
