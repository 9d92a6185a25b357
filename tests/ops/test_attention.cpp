#include <cmath>
#include <doctest/doctest.h>

#include "lowrank/autograd/gradient_check.hpp"
#include "lowrank/core/random.hpp"
#include "lowrank/ops/attention.hpp"
#include "lowrank/ops/cast.hpp"
#include "lowrank/ops/elementwise.hpp"
#include "reference.hpp"

using namespace lowrank;
using lowrank::testing::reference_cases;

namespace {

template <class T>
Tensor<T> random(const Shape& shape, std::uint64_t seed) {
    Rng rng(seed);
    std::vector<T> values(static_cast<std::size_t>(numel(shape)));
    for (T& value : values) {
        value = T(static_cast<float>(rng.normal()));
    }
    return Tensor<T>::from(values, shape);
}

/// Attention by its definition, in double, row by row. `keep` [batch, heads, length, length_kv] may be empty.
std::vector<double> naive(const Tensor<double>& q, const Tensor<double>& k, const Tensor<double>& v,
                          const AttentionOptions<Cpu>& options, const std::vector<double>& keep = {}) {
    const std::int64_t batch = q.size(0), length = q.size(1), heads = q.size(2), dim = q.size(3);
    const std::int64_t length_kv = k.size(1), group = heads / k.size(2);
    const double scale = options.scale.value_or(1 / std::sqrt(double(dim)));
    std::vector<double> y(static_cast<std::size_t>(q.numel()), 0.0);
    const auto at = [](const Tensor<double>& x, std::int64_t b, std::int64_t i, std::int64_t h) {
        return x.data() + b * x.strides()[0] + i * x.strides()[1] + h * x.strides()[2];
    };
    for (std::int64_t b = 0; b < batch; ++b) {
        for (std::int64_t h = 0; h < heads; ++h) {
            for (std::int64_t i = 0; i < length; ++i) {
                const std::int64_t own = length_kv - length + i;
                const std::int64_t last = options.causal ? own : length_kv - 1;
                const std::int64_t first =
                    options.document_start.defined() ? options.document_start.data()[b * length + i] : 0;
                std::vector<double> p;
                double sum = 0;
                for (std::int64_t j = first; j <= last; ++j) {
                    double score = 0;
                    for (std::int64_t d = 0; d < dim; ++d) {
                        score += at(q, b, i, h)[d] * at(k, b, j, h / group)[d];
                    }
                    p.push_back(std::exp(score * scale));
                    sum += p.back();
                }
                for (std::int64_t j = first; j <= last; ++j) {
                    const double kept = keep.empty()
                                            ? 1.0
                                            : keep[std::size_t(((b * heads + h) * length + i) * length_kv + j)] /
                                                  (1 - options.dropout_p);
                    for (std::int64_t d = 0; d < dim; ++d) {
                        y[std::size_t(((b * length + i) * heads + h) * dim + d)] +=
                            p[std::size_t(j - first)] / sum * kept * at(v, b, j, h / group)[d];
                    }
                }
            }
        }
    }
    return y;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
    REQUIRE(a.size() == b.size());
    double worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        worst = std::max(worst, std::abs(a[i] - b[i]));
    }
    return worst;
}

struct Case {
    std::int64_t batch, length, length_kv, heads, kv_heads, dim;
    bool causal = true, documents = false;
    double p = 0;
};

/// Shapes on both sides of the tiles of 64, grouped heads, cached generation, packed documents, dropout.
const std::vector<Case> cases{
    {1, 1, 1, 1, 1, 1},
    {2, 5, 5, 2, 2, 4},
    {1, 70, 70, 2, 1, 8},
    {1, 9, 9, 4, 2, 5, true, true},
    {1, 1, 130, 4, 2, 16},
    {2, 3, 67, 2, 2, 7},
    {1, 6, 10, 2, 2, 3, false},
    {1, 4, 2, 1, 1, 3, false},
    {2, 150, 150, 3, 3, 24, true, true},
    {2, 7, 7, 2, 2, 4, true, false, 0.25},
    {1, 70, 71, 4, 2, 5, true, true, 0.5},
    {1, 300, 300, 1, 1, 20, true, false, 0.1},
};

AttentionOptions<Cpu> options_of(const Case& c) {
    AttentionOptions<Cpu> options;
    options.causal = c.causal;
    if (c.documents) {
        std::vector<std::int32_t> start;
        for (std::int64_t b = 0; b < c.batch; ++b) {
            for (std::int64_t i = 0; i < c.length; ++i) { // documents of 4 + batch index tokens
                const std::int64_t own = c.length_kv - c.length + i;
                start.push_back(static_cast<std::int32_t>(own - own % (c.length > 100 ? 70 + b : 4 + b)));
            }
        }
        options.document_start = Tensor<std::int32_t>::from(start, {c.batch, c.length});
    }
    if (c.p > 0) {
        options.dropout_p = c.p;
        options.seed = Tensor<std::int64_t>::scalar(-1234567890123);
        options.site = 77;
    }
    return options;
}

std::vector<double> mask_of(const Case& c, const AttentionOptions<Cpu>& options) {
    return c.p == 0 ? std::vector<double>{}
                    : attention_dropout_mask<double>(c.batch, c.heads, c.length, c.length_kv, c.p, options.seed.item(),
                                                     options.site)
                          .to_vector();
}

} // namespace

TEST_CASE("attention equals PyTorch's, with gradients, within documents too") {
    for (const auto& c : reference_cases("attention")) {
        CAPTURE(c.name());
        AttentionOptions<Cpu> options;
        options.scale = c.number("scale");
        if (c.has("segments")) {
            const auto segments = c.tensor<double>("segments");
            std::vector<std::int32_t> start;
            for (std::int64_t b = 0; b < segments.size(0); ++b) {
                const double* row = segments.data() + b * segments.size(1);
                for (std::int64_t i = 0; i < segments.size(1); ++i) {
                    start.push_back(i > 0 && row[i] == row[i - 1] ? start.back() : static_cast<std::int32_t>(i));
                }
            }
            options.document_start = Tensor<std::int32_t>::from(start, segments.shape());
        }
        if (c.has("keep")) { // a mask of PyTorch's own: this checks the definition that masks of ours are checked with
            options.dropout_p = c.number("p");
            const auto y = naive(c.tensor<double>("q"), c.tensor<double>("k"), c.tensor<double>("v"), options,
                                 c.tensor<double>("keep").to_vector());
            CHECK(largest_difference(y, c.tensor<double>("y").to_vector()) < 1e-6);
            continue;
        }
        const auto op = [&](const auto& x) {
            return reshape(attention(x[0], x[1], x[2], options), c.tensor<double>("q").shape());
        };
        if (c.tensor<double>("q").size(1) ==
            1) { // one key has probability 1: the gradients of q and k are rounding errors
            const auto q = c.tensor<float>("q"), k = c.tensor<float>("k");
            c.check<float>({"v"}, 1e-6, [&](const auto& v) { return op(std::vector{q, k, v[0]}); });
            continue;
        }
        c.check<double>({"q", "k", "v"}, 1e-6, op);
        c.check<float>({"q", "k", "v"}, 2e-6, op);
    }
}

TEST_CASE("attention equals its definition") {
    for (const Case& c : cases) {
        CAPTURE(c.length);
        CAPTURE(c.length_kv);
        CAPTURE(c.p);
        const auto q = random<double>({c.batch, c.length, c.heads, c.dim}, 1);
        const auto k = random<double>({c.batch, c.length_kv, c.kv_heads, c.dim}, 2);
        const auto v = random<double>({c.batch, c.length_kv, c.kv_heads, c.dim}, 3);
        const auto options = options_of(c);
        const auto expected = naive(q, k, v, options, mask_of(c, options));
        const auto y = attention(q, k, v, options);
        CHECK(y.shape() == Shape{c.batch, c.length, c.heads * c.dim});
        CHECK(largest_difference(y.to_vector(), expected) < 1e-13);

        const auto narrow = attention(cast<float>(q), cast<float>(k), cast<float>(v), options);
        CHECK(largest_difference(cast<double>(narrow).to_vector(), expected) < 3e-6);
        // bf16 inputs are exact here: the output is rounded to bf16, and with AMX the probabilities are before.
        const auto bq = cast<bf16>(q), bk = cast<bf16>(k), bv = cast<bf16>(v);
        const auto rounded = naive(cast<double>(bq), cast<double>(bk), cast<double>(bv), options, mask_of(c, options));
        const auto sizes = naive(cast<double>(bq), cast<double>(bk), sqrt(square(cast<double>(bv))), options,
                                 mask_of(c, options)); // Σ p·|v|
        const double of_probabilities = simd::active_isa() == simd::Isa::amx_bf16 ? 0x1p-8 : 0;
        const auto half = cast<double>(attention(bq, bk, bv, options)).to_vector();
        for (std::size_t i = 0; i < half.size(); ++i) {
            REQUIRE(std::abs(half[i] - rounded[i]) <=
                    0x1p-8 * std::abs(rounded[i]) + of_probabilities * sizes[i] + 1e-5);
        }
    }
}

TEST_CASE("attention has the gradients of its definition") {
    for (const Case& c : cases) {
        CAPTURE(c.length);
        CAPTURE(c.length_kv);
        CAPTURE(c.p);
        const auto options = options_of(c);
        GradientCheckOptions check;
        check.samples = 25;
        const auto report =
            gradient_check([&](const auto& q, const auto& k, const auto& v) { return attention(q, k, v, options); },
                           check, random<double>({c.batch, c.length, c.heads, c.dim}, 1),
                           random<double>({c.batch, c.length_kv, c.kv_heads, c.dim}, 2),
                           random<double>({c.batch, c.length_kv, c.kv_heads, c.dim}, 3));
        CHECK_MESSAGE(report.ok, report.str());
    }
}

TEST_CASE("float and bf16 gradients are close to double's") {
    const Case c{2, 150, 150, 4, 2, 24, true, true, 0.1};
    const auto options = options_of(c);
    const auto q = random<float>({c.batch, c.length, c.heads, c.dim}, 1);
    const auto k = random<float>({c.batch, c.length_kv, c.kv_heads, c.dim}, 2);
    const auto v = random<float>({c.batch, c.length_kv, c.kv_heads, c.dim}, 3);
    const auto dy = random<float>({c.batch, c.length, c.heads * c.dim}, 4);
    const auto gradients = [&]<class T>(T) {
        const auto lq = leaf(cast<T>(q)), lk = leaf(cast<T>(k)), lv = leaf(cast<T>(v));
        Gradients g;
        backward(attention(lq, lk, lv, options), cast<T>(dy), g);
        return std::vector{cast<double>(g[lq]).to_vector(), cast<double>(g[lk]).to_vector(),
                           cast<double>(g[lv]).to_vector()};
    };
    const auto exact = gradients(double()), narrow = gradients(float()), half = gradients(bf16());
    for (std::size_t i = 0; i < 3; ++i) {
        double scale = 0;
        for (const double value : exact[i]) {
            scale = std::max(scale, std::abs(value));
        }
        CHECK(largest_difference(narrow[i], exact[i]) < 2e-6 * scale);
        CHECK(largest_difference(half[i], exact[i]) < 1.5e-2 * scale);
    }
}

TEST_CASE("fused attention equals attention on the parts of its input, with one gradient") {
    const std::int64_t batch = 2, length = 67, heads = 4, kv_heads = 2, dim = 6, width = (heads + 2 * kv_heads) * dim;
    AttentionOptions<Cpu> options = options_of({batch, length, length, heads, kv_heads, dim, true, true, 0.2});
    const auto x = leaf(random<float>({batch, length, width}, 5));
    const auto dy = random<float>({batch, length, heads * dim}, 6);
    const auto part = [&](std::int64_t first, std::int64_t count) {
        return reshape(slice(x, 2, first * dim, (first + count) * dim), {batch, length, count, dim});
    };
    const auto fused = fused_attention(x, heads, kv_heads, options);
    const auto apart = attention(part(0, heads), part(heads, kv_heads), part(heads + kv_heads, kv_heads), options);
    CHECK(fused.to_vector() == apart.to_vector());
    Gradients a, b;
    backward(fused, dy, a);
    backward(apart, dy, b);
    CHECK(a[x].to_vector() == b[x].to_vector());
}

TEST_CASE("views of q, k and v are read in place: [batch, heads, length, dim] seen as [batch, length, heads, dim]") {
    const auto q = random<double>({2, 3, 9, 4}, 1), k = random<double>({2, 3, 9, 4}, 2),
               v = random<double>({2, 3, 9, 4}, 3);
    const auto view = [](const auto& x) { return transpose(x, 1, 2); };
    CHECK(attention(view(q), view(k), view(v)).to_vector() ==
          attention(contiguous(view(q)), contiguous(view(k)), contiguous(view(v))).to_vector());
    const auto report = gradient_check(
        [&](const auto& a, const auto& b, const auto& c) { return attention(view(a), view(b), view(c)); }, q, k, v);
    CHECK_MESSAGE(report.ok, report.str());
}

TEST_CASE("only wanted gradients are computed, and they are the same") {
    const auto q = random<float>({1, 80, 2, 8}, 1), k = random<float>({1, 80, 2, 8}, 2),
               v = random<float>({1, 80, 2, 8}, 3);
    const auto dy = random<float>({1, 80, 16}, 4);
    const auto lq = leaf(q), lk = leaf(k), lv = leaf(v);
    Gradients all;
    backward(attention(lq, lk, lv), dy, all);
    for (int wanted = 0; wanted < 3; ++wanted) {
        Gradients one;
        backward(attention(wanted == 0 ? lq : q, wanted == 1 ? lk : k, wanted == 2 ? lv : v), dy, one);
        CHECK(one.size() == 1);
        const auto& x = wanted == 0 ? lq : wanted == 1 ? lk : lv;
        CHECK(one[x].to_vector() == all[x].to_vector());
    }
}

TEST_CASE("packed documents equal the same documents apart") {
    const auto q = random<float>({1, 100, 2, 8}, 1), k = random<float>({1, 100, 2, 8}, 2),
               v = random<float>({1, 100, 2, 8}, 3);
    std::vector<std::int32_t> start(100, 0);
    std::fill(start.begin() + 30, start.end(), 30);
    AttentionOptions<Cpu> options;
    options.document_start = Tensor<std::int32_t>::from(start, {1, 100});
    const auto packed = cast<double>(attention(q, k, v, options)).to_vector();
    const auto rows = [](const auto& x, std::int64_t a, std::int64_t b) { return contiguous(slice(x, 1, a, b)); };
    auto apart = cast<double>(attention(rows(q, 0, 30), rows(k, 0, 30), rows(v, 0, 30))).to_vector();
    const auto second = cast<double>(attention(rows(q, 30, 100), rows(k, 30, 100), rows(v, 30, 100))).to_vector();
    apart.insert(apart.end(), second.begin(), second.end());
    CHECK(largest_difference(packed, apart) < 1e-6);
}

TEST_CASE("scores far apart, and queries that see nothing in the first tile, stay finite") {
    const std::int64_t length = 130;
    auto q = random<float>({1, length, 1, 4}, 1), k = random<float>({1, length, 1, 4}, 2);
    const auto v = random<float>({1, length, 1, 4}, 3);
    for (std::int64_t i = 0; i < length * 4; ++i) {
        q.mutable_data()[i] *= 100;
        k.mutable_data()[i] *= 100;
    }
    AttentionOptions<Cpu> options;
    std::vector<std::int32_t> start(std::size_t(length), 0);
    std::fill(start.begin() + 100, start.end(), 100); // a block of queries whose documents begin in different tiles
    options.document_start = Tensor<std::int32_t>::from(start, {1, length});
    const auto lq = leaf(q), lk = leaf(k), lv = leaf(v);
    const auto y = attention(lq, lk, lv, options);
    for (const float value : y.to_vector()) {
        CHECK(std::isfinite(value));
    }
    Gradients g;
    backward(y, random<float>(y.shape(), 4), g);
    for (const auto* x : {&lq, &lk, &lv}) {
        for (const float value : g[*x].to_vector()) {
            REQUIRE(std::isfinite(value));
        }
    }
}

TEST_CASE("the same bits for any number of threads") {
    const Case c{2, 600, 600, 4, 2, 16, true, true, 0.1};
    const auto run = [&](int threads) {
        set_num_threads(threads);
        const auto q = leaf(random<float>({c.batch, c.length, c.heads, c.dim}, 1));
        const auto k = leaf(random<float>({c.batch, c.length, c.kv_heads, c.dim}, 2));
        const auto v = leaf(random<float>({c.batch, c.length, c.kv_heads, c.dim}, 3));
        const auto y = attention(q, k, v, options_of(c));
        Gradients g;
        backward(y, random<float>(y.shape(), 4), g);
        return std::vector{y.to_vector(), g[q].to_vector(), g[k].to_vector(), g[v].to_vector()};
    };
    const auto one = run(1);
    CHECK(one == run(2));
    CHECK(one == run(5));
    set_num_threads(2);
}

TEST_CASE("the dropout mask keeps a fraction 1 - p and depends on seed and site") {
    const auto mask = attention_dropout_mask<float>(2, 3, 40, 50, 0.25, 9, 1).to_vector();
    double kept = 0;
    for (const float value : mask) {
        kept += double(value);
    }
    CHECK(kept / double(mask.size()) == doctest::Approx(0.75).epsilon(0.02));
    CHECK(mask != attention_dropout_mask<float>(2, 3, 40, 50, 0.25, 10, 1).to_vector());
    CHECK(mask != attention_dropout_mask<float>(2, 3, 40, 50, 0.25, 9, 2).to_vector());
}

TEST_CASE("empty batches and lengths") {
    using X = Tensor<float>;
    CHECK(attention(X::zeros({0, 3, 2, 4}), X::zeros({0, 3, 2, 4}), X::zeros({0, 3, 2, 4})).shape() == Shape{0, 3, 8});
    const auto q = leaf(X::zeros({1, 0, 2, 4})), k = leaf(X::zeros({1, 3, 2, 4})), v = leaf(X::zeros({1, 3, 2, 4}));
    const auto y = attention(q, k, v);
    CHECK(y.shape() == Shape{1, 0, 8});
    Gradients g;
    backward(y, X::zeros({1, 0, 8}), g);
    CHECK(g[k].to_vector() == std::vector<float>(24, 0.0f));
    CHECK(fused_attention(X::zeros({2, 0, 24}), 2, 2).shape() == Shape{2, 0, 8});
}

TEST_CASE("what does not fit is refused by name") {
    using X = Tensor<float>;
    const auto x = X::zeros({1, 4, 2, 3});
    CHECK_THROWS_WITH_AS(attention(X::zeros({4, 2, 3}), x, x),
                         "attention: q: expected [batch, length, heads, head_dim], found [4, 2, 3]", ShapeError);
    CHECK_THROWS_AS(attention(x, x, X::zeros({1, 4, 2, 4})), ShapeError);
    CHECK_THROWS_AS(attention(x, X::zeros({2, 4, 2, 3}), X::zeros({2, 4, 2, 3})), ShapeError);
    CHECK_THROWS_AS(attention(X::zeros({1, 4, 3, 3}), x, x), ShapeError);
    CHECK_THROWS_WITH_AS(attention(X::zeros({1, 5, 2, 3}), x, x),
                         "attention: fewer keys than queries: q [1, 5, 2, 3], k [1, 4, 2, 3], v [1, 4, 2, 3]",
                         ShapeError);
    CHECK_THROWS_WITH_AS(
        fused_attention(X::zeros({1, 4, 10}), 2, 1),
        "fused_attention: expected [batch, length, a multiple of 4] for 2 heads and 1 key-value heads, "
        "found [1, 4, 10]",
        ShapeError);
    AttentionOptions<Cpu> options;
    options.document_start = Tensor<std::int32_t>::zeros({1, 3});
    CHECK_THROWS_WITH_AS(attention(x, x, x, options),
                         "attention: document_start: expected a contiguous [1, 4], found [1, 3]", ShapeError);
    options.document_start = Tensor<std::int32_t>::zeros({1, 4});
    options.causal = false;
    CHECK_THROWS_AS(attention(x, x, x, options), OptionError);
    options = {};
    options.dropout_p = 1.0;
    CHECK_THROWS_AS(attention(x, x, x, options), OptionError);
    options.dropout_p = 0.5;
    CHECK_THROWS_WITH_AS(attention(x, x, x, options), "attention: dropout needs a seed with one element, found none",
                         ShapeError);
    // Starts outside the row count as its ends.
    options = {};
    options.document_start = Tensor<std::int32_t>::from({-5, 100, 2, 3}, {1, 4});
    for (const float value : attention(x, x, X::full({1, 4, 2, 3}, 1.0f), options).to_vector()) {
        CHECK(value == doctest::Approx(1.0));
    }
}
