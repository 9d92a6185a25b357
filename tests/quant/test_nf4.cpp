// NF4 against bitsandbytes, bit for bit: codes, scales and decoded numbers, on every instruction set.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <type_traits>
#include <vector>

#include "../simd/isas.hpp"
#include "lowrank/io/safetensors.hpp"
#include "lowrank/quant/nf4_decode.hpp"
#include "lowrank/quant/nf4_dot.hpp"
#include "lowrank/quant/nf4_quantize.hpp"

using namespace lowrank;

namespace {

const SafetensorsFile& reference() {
    static const SafetensorsFile file =
        SafetensorsFile::open(std::string(LOWRANK_TEST_FIXTURES) + "/quant_nf4.safetensors");
    return file;
}

template <class T>
std::vector<T> tensor(const std::string& key) {
    const TensorEntry& entry = reference().at(key);
    REQUIRE(entry.dtype == dtype_of<T>);
    std::vector<T> values(entry.bytes.size() / sizeof(T));
    std::memcpy(values.data(), entry.bytes.data(), entry.bytes.size());
    return values;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

/// The same bits, or both NaN.
template <class T>
bool same_numbers(const std::vector<T>& a, const std::vector<T>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](T x, T y) {
        const float f = convert<float>(x), g = convert<float>(y);
        return std::memcmp(&x, &y, sizeof x) == 0 || (std::isnan(f) && std::isnan(g));
    });
}

/// Scales as they count: bitsandbytes writes 1e-38 where the last, shorter block is zero.
std::vector<float> counted(std::vector<float> scales) {
    std::transform(scales.begin(), scales.end(), scales.begin(), nf4_scale);
    return scales;
}

struct Quantized {
    std::vector<std::uint8_t> codes;
    std::vector<float> scales;
    std::int64_t count;

    Nf4View view(DType type) const { return {codes.data(), {.absmax = scales.data()}, type}; }
};

template <class T>
Quantized quantized_on(simd::Isa isa, const std::vector<T>& values) {
    const auto count = static_cast<std::int64_t>(values.size());
    Quantized q{std::vector<std::uint8_t>(std::size_t(nf4_bytes(count))),
                std::vector<float>(std::size_t(nf4_blocks(count))), count};
    simd::run_on_isa<detail::QuantizeNf4>(isa, values.data(), count, q.codes.data(), q.scales.data());
    return q;
}

/// Numbers [begin, end), decoded and rounded to S, as T.
template <class S, class T>
std::vector<T> decoded_on(simd::Isa isa, const Quantized& q, std::int64_t begin, std::int64_t end) {
    std::vector<T> values(std::size_t(end - begin));
    simd::run_on_isa<detail::DecodeNf4Rows<S>>(isa, q.view(dtype_of<S>), std::int64_t(0), std::int64_t(0),
                                               std::int64_t(1), begin, end - begin, values.data(), std::int64_t(0));
    return values;
}

template <class To, class From>
std::vector<To> converted(const std::vector<From>& values) {
    std::vector<To> to;
    std::transform(values.begin(), values.end(), std::back_inserter(to), convert<To, From>);
    return to;
}

template <class T>
void check_case(const std::string& name) {
    const auto values = tensor<T>(name + ".values");
    const auto expected = tensor<T>(name + ".decoded");
    for (const simd::Isa isa : all_isas()) {
        CAPTURE(name);
        CAPTURE(simd::name_of(isa));
        const Quantized q = quantized_on(isa, values);
        CHECK(q.codes == tensor<std::uint8_t>(name + ".codes"));
        CHECK(same_numbers(q.scales, counted(tensor<float>(name + ".absmax"))));
        for (const std::int64_t begin : {0, 1, 2, 32, 64, 77}) { // from an odd place, too
            const std::int64_t end = begin == 0 ? q.count : std::min<std::int64_t>(q.count, begin + 75);
            if (begin < end) {
                const std::vector<T> part(expected.begin() + begin, expected.begin() + end);
                CHECK(same_numbers(decoded_on<T, float>(isa, q, begin, end), converted<float>(part)));
                CHECK(same_numbers(decoded_on<T, bf16>(isa, q, begin, end), converted<bf16>(part)));
            }
        }
    }
}

/// FNV-1a.
template <class T>
std::string digest(const std::vector<T>& values) {
    std::uint64_t hash = 0xcbf29ce484222325;
    const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
    for (std::size_t i = 0; i < values.size() * sizeof(T); ++i) {
        hash = (hash ^ bytes[i]) * 0x100000001b3;
    }
    char text[17];
    std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
    return text;
}

template <class T>
void check_real(const std::vector<float>& weight, const json& expected) {
    const auto values = converted<T>(weight);
    const auto count = static_cast<std::int64_t>(values.size());
    std::vector<std::uint8_t> codes(values.size() / 2);
    std::vector<float> scales(values.size() / 64), decoded(values.size());
    quantize_nf4(values.data(), count, codes.data(), scales.data());
    decode_nf4({codes.data(), {.absmax = scales.data()}, dtype_of<T>}, count, decoded.data());
    const std::string type = dtype_of<T> == DType::f32 ? "f32." : "bf16.";
    CHECK(digest(codes) == expected.at(type + "codes"));
    CHECK(digest(scales) == expected.at(type + "absmax"));
    CHECK(digest(converted<T>(decoded)) == expected.at(type + "decoded"));
    double error = 0, size = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
        error += std::pow(double(decoded[i]) - double(weight[i]), 2);
        size += std::pow(double(weight[i]), 2);
    }
    CHECK(std::sqrt(error / size) < 0.1);
}

} // namespace

TEST_CASE("codes, scales and decoded numbers are bitsandbytes'") {
    for (const char* name :
         {"random", "ragged", "one", "constant", "zeros", "tiny", "huge", "thresholds", "infinite"}) {
        check_case<float>(name);
    }
    check_case<bf16>("bf16");
    check_case<bf16>("huge_bf16");
    for (const char* name : {"fp16", "ragged_fp16", "tiny_fp16"}) {
        check_case<fp16>(name);
    }
}

TEST_CASE("a scale below the normal numbers is zero") {
    for (const simd::Isa isa : all_isas()) {
        Quantized q = quantized_on(isa, std::vector<float>(64, -5e-39f));
        CHECK(q.codes == std::vector<std::uint8_t>(32, 0x77));
        CHECK(q.scales[0] == 0);
        q.codes.assign(32, 0x0f);
        q.scales[0] = 1.17e-38f;
        CHECK(decoded_on<float, float>(isa, q, 0, 64) == std::vector<float>(64, 0.0f));
        q.scales[0] = std::numeric_limits<float>::min();
        CHECK(decoded_on<float, float>(isa, q, 1, 2)[0] == std::numeric_limits<float>::min());
    }
}

TEST_CASE("rounding to fp16, for every float's upper bits") {
    for (const simd::Isa isa : all_isas()) {
        std::int64_t wrong = 0;
        for (std::uint32_t high = 0; high < 0x7f80; high += 1) { // scales; code 15 stands for 1, and code 0 for -1
            Quantized q{{0xf0}, {std::bit_cast<float>(high << 16 | (high * 40503u & 0xffff))}, 2};
            const float scale = nf4_scale(q.scales[0]);
            wrong +=
                decoded_on<fp16, float>(isa, q, 0, 2) != std::vector<float>{float(fp16(scale)), float(fp16(-scale))};
        }
        CHECK(wrong == 0);
    }
}

TEST_CASE("a transposed block is what the rows hold, and nothing else is written") {
    const std::vector<float> values = tensor<float>("random.values");
    for (const simd::Isa isa : all_isas()) {
        const Quantized q = quantized_on(isa, values);
        for (const std::int64_t in : {8, 24, 40, 64, 128, 320}) {
            const std::int64_t out = 1280 / in;
            for (const std::int64_t in0 : {std::int64_t(0), in / 16 * 8}) {
                for (const std::int64_t out0 : {std::int64_t(0), out / 3}) {
                    const std::int64_t rows = out - out0, columns = in - in0 - (in > 8 ? 3 : 0), stride = rows + 2;
                    std::vector<bf16> found(std::size_t(columns * stride), bf16(-7.0f)), expected = found;
                    simd::run_on_isa<detail::DecodeNf4Columns<fp16>>(isa, q.view(DType::f16), in, out0, rows, in0,
                                                                     columns, found.data(), stride);
                    for (std::int64_t o = 0; o < rows; ++o) {
                        const std::int64_t first = (out0 + o) * in + in0;
                        const auto row = decoded_on<fp16, bf16>(isa, q, first, first + columns);
                        for (std::int64_t i = 0; i < columns; ++i) {
                            expected[std::size_t(o + i * stride)] = row[std::size_t(i)];
                        }
                    }
                    CAPTURE(in);
                    CAPTURE(in0);
                    CHECK(same_bits(found, expected));
                }
            }
        }
    }
}

TEST_CASE("products of a few rows are those of the decoded numbers, each row as if alone") {
    const std::vector<float> values = tensor<float>("random.values");
    const auto check = [&]<class S>(std::type_identity<S>, const Quantized& q, const Nf4View& nf4, std::int64_t in) {
        const std::int64_t outs = q.count / in - 1, row0 = 1, most = 7;
        std::vector<float> decoded(std::size_t(q.count));
        decode_nf4(nf4, q.count, decoded.data());
        const auto x = [](std::int64_t row, std::int64_t i) { return float((row * 37 + i * 11) % 101) / 64 - 0.7f; };
        for (const simd::Isa isa : all_isas()) {
            CAPTURE(simd::name_of(isa));
            CAPTURE(in);
            std::vector<float> alone(std::size_t(most * outs));
            for (const std::int64_t rows : {std::int64_t(1), std::int64_t(3), most}) {
                std::vector<float> y(std::size_t(rows * outs));
                for (std::int64_t r0 = 0; r0 < most; r0 += rows) { // the rows r0 …, of which the last may be too many
                    std::vector<float> some, arranged(std::size_t(in * rows));
                    for (std::int64_t i = 0; i < in * rows; ++i) {
                        some.push_back(x(r0 + i / in, i % in));
                    }
                    simd::run_on_isa<detail::ArrangeForNf4>(isa, rows, in, static_cast<const float*>(some.data()),
                                                            arranged.data());
                    simd::run_on_isa<detail::MultiplyNf4Rows<S>>(
                        isa, nf4, in, row0, outs, static_cast<const float*>(arranged.data()), rows, y.data(), outs);
                    for (std::int64_t r = 0; r < rows && r0 + r < most; ++r) {
                        for (std::int64_t o = 0; o < outs; ++o) {
                            double sum = 0, size = 0;
                            for (std::int64_t i = 0; i < in; ++i) {
                                const double product = double(x(r0 + r, i)) * decoded[std::size_t((row0 + o) * in + i)];
                                sum += product;
                                size += std::abs(product);
                            }
                            const float found = y[std::size_t(r * outs + o)];
                            float& of_one = alone[std::size_t((r0 + r) * outs + o)];
                            REQUIRE(std::abs(double(found) - sum) <= 1e-6 * size);
                            of_one = rows == 1 ? found : of_one;
                            REQUIRE(found == of_one);
                        }
                    }
                }
            }
        }
    };
    for (const std::int64_t in : {64, 192, 1344}) { // blocks: one, a few, more than there are lanes
        std::vector<float> some(values.begin(), values.end());
        while (some.size() < std::size_t(3 * in)) {
            some.insert(some.end(), values.begin(), values.end());
        }
        some.resize(some.size() / std::size_t(in) * std::size_t(in));
        const Quantized q = quantized_on(simd::best_isa(), some);
        check(std::type_identity<float>(), q, q.view(DType::f32), in);
        check(std::type_identity<bf16>(), q, q.view(DType::bf16), in);
        check(std::type_identity<fp16>(), q, q.view(DType::f16), in);
        const auto blocks = static_cast<std::int64_t>(q.scales.size());
        std::vector<std::uint8_t> codes(q.scales.size());
        std::vector<float> nested(std::size_t(nested_blocks(blocks)));
        const float offset = quantize_scales(q.scales.data(), blocks, codes.data(), nested.data());
        const Nf4Scales scales{nullptr, codes.data(), nested.data(), dynamic_map.data(), offset};
        check(std::type_identity<bf16>(), q, {q.codes.data(), scales, DType::bf16}, in);
    }
}

TEST_CASE("double quantization follows bitsandbytes' CUDA kernels") {
    CHECK(same_bits(std::vector<float>(dynamic_map.begin(), dynamic_map.end()), tensor<float>("nested.map")));
    const auto ties = tensor<float>("ties.values");
    for (std::size_t i = 0; i < ties.size(); ++i) {
        CHECK(dynamic_code(ties[i]) == tensor<std::uint8_t>("ties.codes")[i]);
    }
    const auto absmax = tensor<float>("nested.absmax"), restored = tensor<float>("nested.restored");
    std::vector<std::uint8_t> codes(absmax.size());
    std::vector<float> nested_absmax(3);
    const float offset =
        quantize_scales(absmax.data(), std::int64_t(absmax.size()), codes.data(), nested_absmax.data());
    CHECK(offset == tensor<float>("nested.offset")[0]);
    CHECK(codes == tensor<std::uint8_t>("nested.codes"));
    CHECK(nested_absmax == tensor<float>("nested.nested_absmax"));
    const Nf4Scales scales{nullptr, codes.data(), nested_absmax.data(), dynamic_map.data(), offset};
    std::vector<float> found;
    for (std::size_t i = 0; i < codes.size(); ++i) {
        found.push_back(scales[std::int64_t(i)]);
    }
    CHECK(same_bits(found, restored));
    // Decoding takes the scales from there.
    const Quantized q{std::vector<std::uint8_t>(absmax.size() * 32, 0xff), {}, std::int64_t(absmax.size() * 64)};
    std::vector<float> decoded(std::size_t(q.count));
    decode_nf4({q.codes.data(), scales, DType::f32}, q.count, decoded.data());
    for (std::size_t i = 0; i < decoded.size(); ++i) {
        REQUIRE(decoded[i] == restored[i / 64]);
    }
    // From a block on from which a vector of scales belongs to two of the second kind.
    const std::int64_t first = (nested_block - 3) * nf4_block;
    for (const simd::Isa isa : all_isas()) {
        std::vector<float> rest(std::size_t(q.count - first));
        simd::run_on_isa<detail::DecodeNf4Rows<float>>(isa, Nf4View{q.codes.data(), scales, DType::f32},
                                                       std::int64_t(0), std::int64_t(0), std::int64_t(1), first,
                                                       q.count - first, rest.data(), std::int64_t(0));
        CAPTURE(simd::name_of(isa));
        CHECK(std::equal(rest.begin(), rest.end(), decoded.begin() + first));
    }
    // Scales that are all equal are the offset.
    const std::vector<float> equal(300, 0.3f);
    CHECK(quantize_scales(equal.data(), 300, codes.data(), nested_absmax.data()) == 0.3f);
    CHECK(scales[299] == offset);
    CHECK(codes[299] == 127);
    CHECK(quantize_scales(equal.data(), 0, codes.data(), nested_absmax.data()) == 0.0f);
}

TEST_CASE("the same bits for any number of threads") {
    const auto part = tensor<float>("random.values");
    std::vector<float> values;
    for (int i = 0; i < 150; ++i) {
        values.insert(values.end(), part.begin(), part.end() - i % 3);
    }
    const auto count = static_cast<std::int64_t>(values.size());
    const Quantized expected = quantized_on(simd::best_isa(), values);
    const int threads = num_threads();
    for (const int n : {1, 3}) {
        set_num_threads(n);
        Quantized q{std::vector<std::uint8_t>(expected.codes.size()), std::vector<float>(expected.scales.size()),
                    count};
        quantize_nf4(values.data(), count, q.codes.data(), q.scales.data());
        CHECK(q.codes == expected.codes);
        CHECK(q.scales == expected.scales);
        std::vector<float> decoded(values.size());
        decode_nf4(q.view(DType::bf16), count, decoded.data());
        CHECK(decoded == decoded_on<bf16, float>(simd::best_isa(), expected, 0, count));
    }
    set_num_threads(threads);
}

TEST_CASE("GPT-2's own matrices") {
    const json hashes = json::parse(reference().metadata().at("real"));
    for (auto it = hashes.begin(); it != hashes.end(); ++it) {
        const auto path = std::filesystem::path(LOWRANK_SHARED_DATA) / "gpt2-tensors" / it.key();
        std::ifstream file(path, std::ios::binary);
        if (!file) {
            MESSAGE("skipped: found no " << path.string());
            continue;
        }
        std::vector<float> weight(768 * 768); // [out, in]; in the file [in, out], big-endian
        for (std::size_t i = 0; i < weight.size(); ++i) {
            unsigned char b[4];
            file.read(reinterpret_cast<char*>(b), 4);
            weight[i % 768 * 768 + i / 768] = std::bit_cast<float>(
                std::uint32_t(b[0]) << 24 | std::uint32_t(b[1]) << 16 | std::uint32_t(b[2]) << 8 | b[3]);
        }
        REQUIRE(file);
        check_real<float>(weight, *it);
        check_real<bf16>(weight, *it);
    }
}
