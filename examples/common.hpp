// What the examples share: the command line, errors as exit codes, models with their adapters.
#pragma once

#include <cctype>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/core.h>
#include <fmt/ranges.h>

#include "config_file.hpp"
#include "lowrank/adapters/peft_files.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"

namespace examples {

using Model = lowrank::Gpt2<float, lowrank::Cpu>;

/// Writes to a stream. A full disk or a closed pipe throws nothing here: a long run must not die of its messages.
/// Program::run looks at standard output once more at the end.
template <class... Args>
void say(std::FILE* to, fmt::format_string<Args...> text, Args&&... args) {
    const std::string line = fmt::format(text, std::forward<Args>(args)...);
    std::fwrite(line.data(), 1, line.size(), to);
}

/// The number that `text` is, all of it, where it lies between the bounds.
template <class Number>
std::optional<Number> read_number(const std::string& text, Number low, Number high) {
    Number value{};
    const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool fits = read.ec == std::errc() && read.ptr == text.data() + text.size() && value >= low && value <= high;
    return fits ? std::optional(value) : std::nullopt;
}

/// Checks an option's number, of the type that it becomes.
template <class Number>
CLI::Validator number(Number low, Number high = std::numeric_limits<Number>::max()) {
    const auto check = [low, high](std::string& text) -> std::string {
        if (read_number(text, low, high)) {
            return "";
        }
        const char* kind = std::is_integral_v<Number> ? "an integer" : "a number";
        return high < std::numeric_limits<Number>::max()
                   ? fmt::format("found '{}', expected {} from {} to {}", text, kind, low, high)
               : low > std::numeric_limits<Number>::lowest()
                   ? fmt::format("found '{}', expected {} of {} or more", text, kind, low)
                   : fmt::format("found '{}', expected {}", text, kind);
    };
    return CLI::Validator(check, "");
}

/// A command line with --help, that shows defaults, and --config; and what every program does around its work.
class Program : public CLI::App {
  public:
    explicit Program(const std::string& description) : CLI::App(description) {
        option_defaults()->always_capture_default();
        set_config("--config", "", "file with options, name = value a line; the command line wins");
        config_formatter(std::make_shared<ConfigFile>(*this));
    }

    /// Parses the command line and runs `body`. Returns what `body` does, or 1 for an error and 2 for a wrong option,
    /// with one line on standard error.
    int run(int argc, char** argv, const std::function<int()>& body) {
        prepare_process();
        for (CLI::Option* option : get_options({})) {
            if (option->get_default_str() == "[]") {
                option->default_str(""); // a list without entries, in --help
            }
        }
        const int code = guarded([&] {
            parse(argc, argv);
            return body();
        });
        if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
            return fail(code == 0 ? 1 : code, "standard output: not everything could be written");
        }
        return code;
    }

  private:
    /// Writing to a closed pipe or beyond a limit becomes an error instead of a signal. Standard streams that are
    /// closed get a place where reading and writing fail, lest the next file take their number.
    static void prepare_process() {
        std::signal(SIGPIPE, SIG_IGN);
        std::signal(SIGXFSZ, SIG_IGN);
        for (int stream = 0; stream < 3; ++stream) {
            if (::fcntl(stream, F_GETFD) < 0 && errno == EBADF) {
                ::open("/dev/null", stream == 0 ? O_WRONLY : O_RDONLY);
            }
        }
    }

    int guarded(const std::function<int()>& work) {
        try {
            return work();
        } catch (const CLI::Success& help) {
            return exit(help);
        } catch (const CLI::ExtrasError&) {
            return fail(2, unknown_options());
        } catch (const CLI::ParseError& error) {
            return fail(2, error.what());
        } catch (const lowrank::OptionError& error) {
            return fail(2, error.what());
        } catch (const std::bad_alloc&) {
            return fail(1, "out of memory");
        } catch (const std::exception& error) {
            return fail(1, error.what());
        }
    }

    std::string unknown_options() const {
        std::string text;
        for (const std::string& argument : remaining()) {
            if (argument.starts_with("--")) {
                const std::string name = argument.substr(0, argument.find('='));
                std::vector<std::string> names;
                for (const CLI::Option* option : get_options()) {
                    names.push_back(option->get_name());
                }
                text += (text.empty() ? "" : "; ") + ("unknown option " + name) + lowrank::similar_names(name, names);
            }
        }
        return text.empty() ? "found '" + remaining().front() + "', expected options" : text;
    }

    /// One line, whatever names of files and tokens are in it.
    static int fail(int code, const std::string& what) {
        std::string line;
        for (const char c : what) {
            line += std::iscntrl(static_cast<unsigned char>(c)) ? fmt::format("\\x{:02x}", static_cast<unsigned>(c))
                                                                : std::string(1, c);
        }
        say(stderr, "error: {}\n", line);
        return code;
    }
};

/// Which model a program works with; the options that all programs share.
struct ModelOptions {
    std::string model, adapter;
    int threads = 0;
};

inline void add_model_options(CLI::App& app, ModelOptions& options, bool with_adapter) {
    app.add_option("--model", options.model,
                   "directory of a GPT-2 as Transformers saves it: config.json, model.safetensors, tokenizer files")
        ->required();
    if (with_adapter) {
        app.add_option("--adapter", options.adapter, "directory of a LoRA adapter as PEFT saves it");
    }
    app.add_option("--threads", options.threads, "threads; 0 takes all CPUs")->check(number<int>(0, 1024));
}

inline void notice_unknown_keys(const std::string& file, const std::vector<std::string>& keys) {
    if (!keys.empty()) {
        say(stderr, "{}: keys that are not known are ignored: {}\n", file, fmt::join(keys, ", "));
    }
}

/// The model of the options, with its adapter if one is given.
inline Model load_model(const ModelOptions& options) {
    if (options.threads > 0) {
        lowrank::set_num_threads(options.threads);
    }
    Model model = lowrank::load_gpt2<float>(options.model);
    notice_unknown_keys(options.model + "/config.json", model.config.unknown_keys);
    if (!options.adapter.empty()) {
        const lowrank::LoraConfig config = lowrank::load_adapter<float, lowrank::Cpu>(model, options.adapter);
        notice_unknown_keys(options.adapter + "/adapter_config.json", config.unknown_keys);
    }
    return model;
}

/// Throws NumericError, naming the tensor, where a weight or an adapter's factor is not finite: weights are not scanned
/// when they are loaded, but this explains a loss that is not.
inline void require_finite_weights(Model& model) {
    lowrank::for_each_parameter(model, []<class Field>(const std::string& name, const Field& field) {
        if constexpr (std::is_same_v<Field, lowrank::WeightSlot<float, lowrank::Cpu>>) {
            if (field.frozen()) {
                lowrank::require_finite(name, field.frozen()->template dense_copy<float>());
            }
        } else if (field.defined()) {
            lowrank::require_finite(name, field);
        }
    });
    for (const auto& tensor : lowrank::trainable_tensors<float, lowrank::Cpu>(model)) {
        lowrank::require_finite(tensor.name, tensor.values);
    }
}

/// Refuses an output directory that exists and is not empty unless it may be replaced, and one that holds a file or
/// directory that is used, for it is replaced as a whole. `used` has the names of options and their paths.
inline void check_output(const std::string& output, bool overwrite,
                         const std::vector<std::pair<std::string, std::string>>& used) {
    const auto place = [](const std::string& path) {
        return (std::filesystem::weakly_canonical(std::filesystem::absolute(path)) / "").lexically_normal().string();
    };
    if (output.empty()) {
        throw lowrank::OptionError("--output: found an empty name, expected a directory to write");
    }
    if (!overwrite && std::filesystem::exists(output) &&
        (!std::filesystem::is_directory(output) || !std::filesystem::is_empty(output))) {
        throw lowrank::OptionError("--output: '" + output +
                                   "' exists and is not empty; --overwrite-output-dir replaces it as a whole");
    }
    for (const auto& [option, path] : used) {
        if (!path.empty() && place(path).starts_with(place(output))) {
            throw lowrank::OptionError("--output: '" + output + "' is replaced as a whole, but it holds " + option +
                                       " '" + path + "'");
        }
    }
}

/// Copies the files that a tokenizer is made of, as far as they exist, so that the new directory stands by itself.
inline void copy_tokenizer(const std::filesystem::path& from, const std::filesystem::path& to) {
    for (const char* name : {"vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json",
                             "special_tokens_map.json", "added_tokens.json", "char_vocab.json"}) {
        if (std::filesystem::exists(from / name)) {
            lowrank::write_atomically(to / name, lowrank::read_text(from / name));
        }
    }
}

} // namespace examples
