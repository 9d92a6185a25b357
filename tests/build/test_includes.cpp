// The order of the rooms: a header includes only its own room and those before it; nothing else in the library does.
#include <algorithm>
#include <doctest/doctest.h>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

/// The rooms in their order; docs/architecture.md says what lives in each.
const std::vector<std::string> rooms = {"core",         "math",     "simd", "quant",  "tensor",   "backend/cpu",
                                        "backend/cuda", "autograd", "ops",  "nn",     "io",       "adapters",
                                        "optim",        "text",     "data", "models", "generate", "train"};

/// Headers of the library's root, for users; no room includes them.
const std::set<std::string> root_headers = {"lowrank.hpp", "version.hpp"};

/// A header that the build includes, and not the user.
const std::string build_header = "backend/cpu/separate_kernels.hpp";

const fs::path include = fs::path(LOWRANK_TEST_FIXTURES) / ".." / ".." / "include";

struct Includes {
    std::vector<std::string> own;   ///< paths below include/lowrank
    std::vector<std::string> other; ///< as written, without brackets or quotes
};

/// The headers below a folder, as paths below include/lowrank, with what each includes.
std::map<std::string, Includes> read_headers(const fs::path& root) {
    std::map<std::string, Includes> headers;
    for (const auto& entry : fs::recursive_directory_iterator(root)) {
        if (entry.path().extension() != ".hpp" && entry.path().extension() != ".inc") {
            continue;
        }
        Includes& includes = headers[fs::relative(entry.path(), root).generic_string()];
        std::ifstream file(entry.path());
        for (std::string line; std::getline(file, line);) {
            const std::size_t begin = line.find_first_of("<\""), end = line.find_last_of(">\"");
            if (line.rfind("#include", line.find_first_not_of(" \t")) != line.find_first_not_of(" \t") ||
                begin == std::string::npos || end <= begin) {
                continue;
            }
            const std::string path = line.substr(begin + 1, end - begin - 1);
            if (path.rfind("lowrank/", 0) == 0) {
                includes.own.push_back(path.substr(8));
            } else {
                includes.other.push_back(path);
            }
        }
    }
    return headers;
}

/// The place of a header's room in the order; the number of rooms where it has none.
std::size_t place(const std::string& header) {
    const auto room = std::find_if(rooms.begin(), rooms.end(),
                                   [&](const std::string& name) { return header.rfind(name + "/", 0) == 0; });
    return static_cast<std::size_t>(room - rooms.begin());
}

/// What is wrong with the headers' includes, one line each.
std::vector<std::string> faults(const std::map<std::string, Includes>& headers) {
    std::vector<std::string> found;
    for (const auto& [header, includes] : headers) {
        const bool root = root_headers.count(header) > 0;
        if (!root && place(header) == rooms.size()) {
            found.push_back(header + " lies in no room");
        }
        for (const std::string& path : includes.own) {
            if (headers.count(path) == 0) {
                found.push_back(header + " includes " + path + ", which does not exist");
            } else if (!root && place(path) > place(header)) {
                found.push_back(header + " includes " + path + ", a later room");
            }
        }
    }
    return found;
}

/// Everything that a header includes, directly or not.
std::set<std::string> closure(const std::map<std::string, Includes>& headers, const std::string& header) {
    std::set<std::string> seen;
    std::vector<std::string> open{header};
    while (!open.empty()) {
        const std::string at = open.back();
        open.pop_back();
        for (const std::string& path : headers.at(at).own) {
            if (seen.insert(path).second) {
                open.push_back(path);
            }
        }
        seen.insert(headers.at(at).other.begin(), headers.at(at).other.end());
    }
    return seen;
}

const auto headers = read_headers(include / "lowrank");

} // namespace

TEST_CASE("includes go one way, down the list of rooms") {
    CHECK(headers.size() > 100);
    for (const std::string& fault : faults(headers)) {
        FAIL_CHECK(fault);
    }
}

TEST_CASE("a header that includes a later room, lies in no room or misses its target is found") {
    const std::map<std::string, Includes> wrong = {{"core/a.hpp", {{"ops/b.hpp"}, {}}},
                                                   {"ops/b.hpp", {{"core/gone.hpp"}, {}}},
                                                   {"attic/c.hpp", {{"core/a.hpp"}, {}}}};
    CHECK(faults(wrong) == std::vector<std::string>{"attic/c.hpp lies in no room",
                                                    "core/a.hpp includes ops/b.hpp, a later room",
                                                    "ops/b.hpp includes core/gone.hpp, which does not exist"});
}

TEST_CASE("no header includes itself, directly or not") {
    for (const auto& [header, includes] : headers) {
        CHECK_MESSAGE(closure(headers, header).count(header) == 0, header);
    }
}

TEST_CASE("lowrank.hpp is all of core to optim that needs no other library") {
    const auto needs_library = [](const std::set<std::string>& includes) {
        return std::any_of(includes.begin(), includes.end(), [](const std::string& path) {
            return path == "pcre2.h" || path.rfind("nlohmann/", 0) == 0 || path.rfind("Eigen/", 0) == 0;
        });
    };
    const std::set<std::string> reached = closure(headers, "lowrank.hpp");
    CHECK_FALSE(needs_library(reached));
    for (const auto& [header, includes] : headers) {
        const bool io = place(header) == place("io/json.hpp"), late = place(header) > place("optim/adamw.hpp");
        if (root_headers.count(header) == 0 && header != build_header && fs::path(header).extension() == ".hpp") {
            const bool wanted = !io && !late && !needs_library(closure(headers, header));
            CHECK_MESSAGE((reached.count(header) == 1) == wanted, header);
        }
    }
}
