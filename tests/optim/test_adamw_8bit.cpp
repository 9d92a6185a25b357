// AdamW with moments in 8 bits, and in a file.
#include <cmath>
#include <cstring>
#include <doctest/doctest.h>
#include <filesystem>

#include "lowrank/core/parallel.hpp"
#include "lowrank/io/safetensors.hpp"
#include "lowrank/optim/adamw.hpp"
#include "lowrank/train/optimizer_file.hpp"

using namespace lowrank;

namespace {

// The run of tests/scripts/optim_8bit_fixtures.py.
constexpr int steps = 12;
const AdamWOptions settings{.learning_rate = 2e-3, .beta2 = 0.99, .weight_decay = 0.05, .eight_bit = true};
const Shape wide{41, 100}, narrow{63, 65};

template <class T>
std::vector<T> stored(const std::string& key) {
    static const SafetensorsFile file = SafetensorsFile::open(LOWRANK_TEST_FIXTURES "/optim_adamw_8bit.safetensors");
    const TensorEntry& entry = file.at(key);
    std::vector<T> out(entry.bytes.size() / sizeof(T));
    std::memcpy(out.data(), entry.bytes.data(), entry.bytes.size());
    return out;
}

struct Run {
    Tensor<float> wide, narrow;
    AdamW<float> optimizer;

    explicit Run(const AdamWOptions& options = settings)
        : wide(leaf(Tensor<float>::from(stored<float>("start.wide"), ::wide))),
          narrow(leaf(Tensor<float>::from(stored<float>("start.narrow"), ::narrow))),
          optimizer({ParameterGroup<float>({wide, narrow}, {"wide", "narrow"})}, options) {}

    void step(int index) {
        Gradients gradients;
        for (const auto& [parameter, key] :
             {std::pair(&wide, "gradient.wide"), std::pair(&narrow, "gradient.narrow")}) {
            const std::vector<float> base = stored<float>(key);
            std::vector<float> moved(base.size());
            for (std::size_t i = 0; i < base.size(); ++i) {
                moved[(i + 37 * std::size_t(index)) % base.size()] = std::ldexp(base[i], -(index % 5));
            }
            gradients.add(parameter->node(), Tensor<float>::from(moved, parameter->shape()));
        }
        optimizer.step(gradients);
    }
    void steps(int begin, int end) {
        for (int i = begin; i < end; ++i) {
            step(i);
        }
    }
    const AdamWState<float, Cpu>& state() const { return optimizer.state()[0]; }
};

double distance(const std::vector<float>& a, const std::vector<float>& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        sum += std::pow(double(a[i]) - double(b[i]), 2);
    }
    return std::sqrt(sum);
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
    double largest = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        largest = std::max(largest, std::abs(double(a[i]) - double(b[i])));
    }
    return largest;
}

/// How many codes differ; none by more than one.
int different(const Tensor<std::uint8_t>& codes, const std::string& key) {
    const std::vector<std::uint8_t> ours = codes.to_vector(), expected = stored<std::uint8_t>(key);
    int count = 0;
    for (std::size_t i = 0; i < ours.size(); ++i) {
        REQUIRE(std::abs(int(ours[i]) - int(expected[i])) <= 1);
        count += ours[i] != expected[i];
    }
    return count;
}

} // namespace

TEST_CASE("the maps are bitsandbytes', and every number of theirs has its own code") {
    CHECK(std::vector<float>(dynamic_map.begin(), dynamic_map.end()) == stored<float>("map"));
    CHECK(std::vector<float>(unsigned_dynamic_map.begin(), unsigned_dynamic_map.end()) ==
          stored<float>("unsigned_map"));
    std::uint8_t codes[256];
    detail::dynamic_encode<true, 4>(dynamic_map.data(), 256, 1, codes);
    for (int i = 0; i < 256; ++i) {
        CHECK(codes[i] == i);
    }
    detail::dynamic_encode<false, 4>(unsigned_dynamic_map.data(), 255, 1, codes); // the last vector is short
    for (int i = 0; i < 255; ++i) {
        CHECK(codes[i] == std::max(i, 1)); // a second moment does not become zero
    }
    // The nearest number, between all neighbours and beyond the ends.
    for (int i = 1; i < 256; ++i) {
        const float low = dynamic_map[std::size_t(i - 1)], high = dynamic_map[std::size_t(i)];
        const float x[4] = {low * 0.501f + high * 0.499f, low * 0.499f + high * 0.501f, -1, -1e-9f};
        detail::dynamic_encode<true, 4>(x, 4, 1, codes);
        CHECK(codes[0] == (i == 128 ? 127 : i - 1));
        CHECK(codes[1] == (i == 127 ? 126 : i)); // of a negative number not zero
        CHECK(codes[2] == 0);
        CHECK(codes[3] == 126);
    }
}

TEST_CASE("twelve steps have the codes of bitsandbytes' CUDA rule, and stay near AdamW's in fp32") {
    Run run;
    for (int i = 0; i < steps; ++i) {
        run.step(i);
        if (i == 0 || i == 4 || i == steps - 1) {
            const std::string at = "." + std::to_string(i);
            CAPTURE(at);
            // One code in a thousand may lie on the other side of a middle.
            CHECK(different(run.state().exp_avg_codes, "exp_avg_codes" + at) <= 4);
            CHECK(different(run.state().exp_avg_sq_codes, "exp_avg_sq_codes" + at) <= 4);
            CHECK(largest_difference(run.state().exp_avg_absmax.to_vector(), stored<float>("exp_avg_absmax" + at)) <
                  1e-6);
            CHECK(largest_difference(run.state().exp_avg_sq_absmax.to_vector(),
                                     stored<float>("exp_avg_sq_absmax" + at)) < 1e-7);
            CHECK(distance(run.wide.to_vector(), stored<float>("wide" + at)) <
                  1e-3 * distance(run.wide.to_vector(), stored<float>("start.wide")));
        }
    }
    const std::vector<float> exact = stored<float>("fp32.wide");
    const double way = distance(exact, stored<float>("start.wide"));
    CHECK(distance(run.wide.to_vector(), exact) < 0.13 * way);
    CHECK(distance(stored<float>("cpu.wide"), exact) > 0.2 * way); // bitsandbytes' CPU build
    // What is small stays in fp32.
    CHECK_FALSE(run.optimizer.state()[1].is_8bit());
    CHECK(largest_difference(run.narrow.to_vector(), stored<float>("narrow")) < 3e-6);
}

TEST_CASE("the result does not depend on the number of threads, nor on where the moments lie") {
    const int threads = num_threads();
    std::vector<std::vector<float>> results;
    for (const int count : {1, 2, 3}) {
        set_num_threads(count);
        AdamWOptions options{.learning_rate = 1e-2, .eight_bit = true};
        if (count == 3) {
            options.paged_directory = std::filesystem::temp_directory_path().string();
        }
        const std::int64_t n = 3 * elementwise_grain + 300;
        std::vector<float> slope(static_cast<std::size_t>(n));
        for (std::size_t i = 0; i < slope.size(); ++i) {
            slope[i] = std::cos(3 * static_cast<float>(i)) * 1e-2f;
        }
        const Tensor<float> parameter = leaf(Tensor<float>::zeros({n}));
        AdamW<float> optimizer({ParameterGroup<float>({parameter})}, options);
        for (int step = 0; step < 3; ++step) {
            Gradients gradients;
            gradients.add(parameter.node(), Tensor<float>::from(slope, {n}));
            optimizer.step(gradients, 1, 0.5);
        }
        results.push_back(parameter.to_vector());
        CHECK(moment_bytes(n, sizeof(float), options) == 2 * (n + 4 * ((n + 255) / 256)));
    }
    set_num_threads(threads);
    CHECK(results[0] == results[1]);
    CHECK(results[0] == results[2]);
}

TEST_CASE("moments of zero, and gradients that are not finite") {
    Run run;
    Gradients zeros;
    zeros.add(run.wide.node(), Tensor<float>::zeros(wide));
    run.optimizer.step(zeros, 0);
    CHECK(run.wide.to_vector() == stored<float>("start.wide"));
    CHECK(run.state().exp_avg_sq_absmax.to_vector() == std::vector<float>(17, 0.0f));
    std::vector<float> one(4100, 1e-3f);
    one[300] = std::nanf("");
    Gradients bad;
    bad.add(run.wide.node(), Tensor<float>::from(one, wide));
    run.optimizer.step(bad);
    int not_finite = 0;
    for (const float x : run.wide.to_vector()) {
        not_finite += !std::isfinite(x);
    }
    CHECK(not_finite == 1);
}

TEST_CASE("a run goes on from a file with the same bits, for moments in 8 bits, in a file, and both") {
    const auto folder = std::filesystem::temp_directory_path() / concat("lowrank-adamw-", ::getpid());
    std::filesystem::create_directories(folder);
    for (const int kind : {0, 1, 2, 3}) {
        CAPTURE(kind);
        AdamWOptions options = settings;
        options.eight_bit = kind % 2 == 1;
        options.paged_directory = kind >= 2 ? folder.string() : "";
        Run whole(options), first(options), second(options);
        CHECK(std::filesystem::is_empty(folder)); // a file of moments has no name
        whole.steps(0, steps);
        first.steps(0, 5);
        write_optimizer(first.optimizer, folder / "optimizer.safetensors");
        const SafetensorsFile file = SafetensorsFile::open((folder / "optimizer.safetensors").string());
        CHECK(file.keys().size() == (options.eight_bit ? 8 : 6));
        read_optimizer(second.optimizer, file, update_counts(first.optimizer));
        second.steps(5, steps);
        CHECK(second.wide.to_vector() == whole.wide.to_vector());
        CHECK(second.narrow.to_vector() == whole.narrow.to_vector());
        // Moments of the other kind are refused.
        options.eight_bit = !options.eight_bit;
        Run other(options);
        CHECK_THROWS_AS(read_optimizer(other.optimizer, file, update_counts(first.optimizer)), FileError);
        CHECK_THROWS_AS(other.optimizer.load_state(first.optimizer.state()), ShapeError);
        CHECK(other.wide.to_vector() == stored<float>("start.wide"));
        std::filesystem::remove(folder / "optimizer.safetensors");
    }
    std::filesystem::remove_all(folder);
}

TEST_CASE("moments that find no place, and parameters of another type, are refused") {
    AdamWOptions options = settings;
    options.paged_directory = "/nonexistent/folder";
    CHECK_THROWS_AS(Run{options}, FileError);
    const Tensor<double> parameter = leaf(Tensor<double>::zeros({5000}));
    CHECK_THROWS_WITH_AS(AdamW<double>({ParameterGroup<double>({parameter})}, settings),
                         "AdamW: moments in 8 bits need parameters in fp32", OptionError);
}
