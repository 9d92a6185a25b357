#include "program.hpp"

#include <cctype>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <fcntl.h>
#include <memory>
#include <new>
#include <vector>

#include "config_file.hpp"
#include "lowrank/core/error.hpp"
#include "lowrank/io/near_matches.hpp"
#include "say.hpp"

namespace examples {

namespace {

/// Writing to a closed pipe or beyond a limit becomes an error instead of a signal. Standard streams that are
/// closed get a place where reading and writing fail, lest the next file take their number.
void prepare_process() {
    std::signal(SIGPIPE, SIG_IGN);
    std::signal(SIGXFSZ, SIG_IGN);
    for (int stream = 0; stream < 3; ++stream) {
        if (::fcntl(stream, F_GETFD) < 0 && errno == EBADF) {
            ::open("/dev/null", stream == 0 ? O_WRONLY : O_RDONLY);
        }
    }
}

/// One line, whatever names of files and tokens are in it.
int fail(int code, const std::string& what) {
    std::string line;
    for (const char c : what) {
        line += std::iscntrl(static_cast<unsigned char>(c)) ? fmt::format("\\x{:02x}", static_cast<unsigned>(c))
                                                            : std::string(1, c);
    }
    say(stderr, "error: {}\n", line);
    return code;
}

} // namespace

Program::Program(const std::string& description) : CLI::App(description) {
    option_defaults()->always_capture_default();
    set_config("--config", "", "file with options, name = value a line; the command line wins");
    config_formatter(std::make_shared<ConfigFile>(*this));
}

Program::~Program() = default;

int Program::run(int argc, char** argv, const std::function<int()>& body) {
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

int Program::guarded(const std::function<int()>& work) {
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

std::string Program::unknown_options() const {
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

} // namespace examples
