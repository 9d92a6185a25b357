// Combining adapters: sums of changes, and the papers' cases by hand.

#include <cmath>
#include <functional>

#include "lowrank/adapters/combine.hpp"
#include "random_tensor.hpp"
#include "reference.hpp"

using namespace lowrank;
using lowrank::testing::random_tensor;
using lowrank::testing::relative_error;

namespace {

using X = Tensor<double>;
using Factors = LayerChange<double, Cpu>;
using Values = std::vector<double>;

Factors source(std::int64_t out, std::int64_t in, std::int64_t r, double scale, Rng& rng) {
    Factors f;
    f.a = leaf(random_tensor<double>({r, in}, rng)); // as an adapter has them
    f.b = leaf(random_tensor<double>({out, r}, rng));
    f.scale = scale;
    return f;
}

X change(const Factors& f) {
    const NoGrad no_grad;
    return matmul(f.b, f.a) * f.scale;
}

CombineOptions options(Combination type, std::optional<double> density = {}) {
    CombineOptions o;
    o.combination_type = type;
    o.density = density;
    return o;
}

Values merged(Combination type, const std::vector<Values>& tasks, const Values& weights, double density,
              MajoritySign sign = MajoritySign::total) {
    CombineOptions o = options(type, density);
    o.majority_sign_method = sign;
    Rng rng(1);
    return merge_tasks(tasks, weights, o, rng);
}

std::string refusal(const std::function<void()>& run) {
    try {
        run();
    } catch (const OptionError& error) {
        return error.what();
    }
    return "";
}

} // namespace

TEST_CASE("cat, and svd at full rank, are the weighted sum of the changes, whatever the ranks and scales") {
    Rng rng(1);
    // rsLoRA's scale, an α of its own, a negative weight, different ranks.
    const std::vector<Factors> sources{source(9, 7, 2, 16 / std::sqrt(2.0), rng), source(9, 7, 3, 0.25, rng),
                                       source(9, 7, 1, 2, rng)};
    const Values weights{0.7, -1.3, 2};
    const X sum = change(sources[0]) * weights[0] + change(sources[1]) * weights[1] + change(sources[2]) * weights[2];

    const Factors cat = combine(sources, weights, options(Combination::cat), "l");
    CHECK(cat.a.shape() == Shape{6, 7});
    CHECK(cat.b.shape() == Shape{9, 6});
    CHECK(cat.scale == 1);
    CHECK(relative_error(change(cat), sum) <= 1e-14);
    CHECK_FALSE(cat.a.node());

    CombineOptions full = options(Combination::svd);
    full.svd_rank = 6;
    CHECK(relative_error(change(combine(sources, weights, full, "l")), sum) <= 1e-13);
    full.svd_rank = 100; // more than there is
    CHECK(combine(sources, weights, full, "l").a.shape() == Shape{6, 7});

    // By default the largest rank of the sources: the best approximation of it.
    const Factors cut = combine(sources, weights, options(Combination::svd), "l");
    const Svd<double, Cpu> best = svd(sum, 3);
    CHECK(cut.a.shape() == Shape{3, 7});
    CHECK(relative_error(change(cut), matmul(best.u * best.s, best.vt)) <= 1e-12);

    // A change that is no product, as DoRA's: the same sum.
    std::vector<Factors> mixed = sources;
    mixed[1] = Factors();
    mixed[1].delta = change(sources[1]);
    CHECK(relative_error(change(combine(mixed, weights, full, "l")), sum) <= 1e-12);

    // Biases add up.
    std::vector<Factors> biased{sources[0], sources[1]};
    biased[0].b_bias = random_tensor<double>({9}, rng);
    const X expected = biased[0].b_bias * (0.5 * biased[0].scale);
    for (const Combination type : {Combination::cat, Combination::linear, Combination::svd}) {
        if (type == Combination::linear) {
            biased[1] = source(9, 7, 2, 0.25, rng);
        }
        CHECK(relative_error(combine(biased, {0.5, 3}, options(type), "l").b_bias, expected) <= 1e-15);
    }
}

TEST_CASE("float sources, as files hold them") {
    Rng rng(2);
    LayerChange<float, Cpu> one;
    one.a = random_tensor<float>({4, 30}, rng);
    one.b = random_tensor<float>({20, 4}, rng);
    one.scale = 3;
    const Tensor<float> expected = matmul(one.b, one.a) * 1.5;
    for (const Combination type : {Combination::cat, Combination::svd, Combination::linear}) {
        const LayerChange<float, Cpu> found = combine<float, Cpu>({one}, {0.5}, options(type), "l");
        CHECK(relative_error(matmul(found.b, found.a), expected) <= 2e-6);
    }
}

TEST_CASE("linear is PEFT's: the factors are added, each with the root of its weight") {
    Rng rng(3);
    const std::vector<Factors> sources{source(5, 4, 2, 4, rng), source(5, 4, 2, 0.25, rng)};
    const Factors found = combine(sources, {1, -9}, options(Combination::linear), "l");
    const NoGrad no_grad;
    CHECK(relative_error(found.a, sources[0].a * 2.0 - sources[1].a * 1.5) <= 1e-15);
    CHECK(relative_error(found.b, sources[0].b * 2.0 + sources[1].b * 1.5) <= 1e-15);
    // One adapter alone is scaled exactly, to the negative, too.
    CHECK(relative_error(change(combine<double, Cpu>({sources[0]}, {-2}, options(Combination::linear), "l")),
                         change(sources[0]) * -2.0) <= 1e-15);
}

TEST_CASE("trimming keeps the largest magnitudes") {
    Values v{1, -5, 3, 0.5, -2, 4};
    prune_magnitude(v, 0.5);
    CHECK(v == Values{0, -5, 3, 0, 0, 4});
    v = {2, -2, 2, -2};
    prune_magnitude(v, 0.5);
    CHECK(v == Values{2, -2, 0, 0}); // of equal ones the first
    v = {1, 2, 3};
    prune_magnitude(v, 0.5); // ⌊1.5⌋
    CHECK(v == Values{0, 0, 3});
    prune_magnitude(v, 1);
    CHECK(v == Values{0, 0, 3});
}

TEST_CASE("TIES: trim, elect, and the mean of those that agree") {
    // Figure 1 of the paper: per parameter the influential values agree, disagree, or are trimmed.
    const std::vector<Values> tasks{{5, -4, 0.1, 3, 1}, {4, 3, -0.2, -5, 0.3}, {0.2, 3, 6, 2.5, -2}};
    // Of five values three are kept (⌊0.6·5⌋): {5,-4,0,3,0}, {4,3,0,-5,0}, {0,3,6,2.5,0}.
    const Values found = merged(Combination::ties, tasks, {1, 1, 1}, 0.6);
    CHECK(found[0] == doctest::Approx(4.5));  // 5 and 4; the third was trimmed
    CHECK(found[1] == doctest::Approx(3));    // −4 + 3 + 3 > 0: the two that agree
    CHECK(found[2] == doctest::Approx(6));    // one is left
    CHECK(found[3] == doctest::Approx(2.75)); // 3 − 5 + 2.5 > 0
    CHECK(found[4] == 0);                     // all were trimmed

    // The sign of the larger total against that of the greater number.
    const std::vector<Values> votes{{-9, 1}, {2, 1}, {3, -2}};
    CHECK(merged(Combination::ties, votes, {1, 1, 1}, 1)[0] == doctest::Approx(-9));
    CHECK(merged(Combination::ties, votes, {1, 1, 1}, 1, MajoritySign::frequency)[0] == doctest::Approx(2.5));
    CHECK(merged(Combination::ties, votes, {1, 1, 1}, 1)[1] == doctest::Approx(1)); // 0 counts as positive
    // Weights act after the election, the mean is over the number of those that agree.
    CHECK(merged(Combination::ties, votes, {5, 0.5, 2}, 1, MajoritySign::frequency)[0] == doctest::Approx(3.5));

    CHECK(merged(Combination::magnitude_prune, tasks, {1, 1, 2}, 0.6) == Values{9, 5, 12, 3, 0});
}

TEST_CASE("DARE drops at random and keeps the expectation") {
    const Values ones(20000, 1.0);
    CombineOptions o = options(Combination::dare_linear, 0.25);
    Rng rng(7), again(7);
    const Values found = merge_tasks<double>({ones}, {2}, o, rng);
    double mean = 0;
    for (const double value : found) {
        CHECK_MESSAGE((value == 0 || value == 8), value); // 2/0.25
        mean += value / 20000;
    }
    CHECK(mean == doctest::Approx(2).epsilon(0.05));
    CHECK(merge_tasks<double>({ones}, {2}, o, again) == found);
    const Values all = merged(Combination::dare_linear, {{1, 2}, {3, -4}}, {1, 0.5}, 1); // nothing dropped: a sum
    CHECK(all == Values{2.5, 0});
    CHECK(merged(Combination::dare_ties, {{1, 2}, {3, -4}}, {1, 1}, 1) == Values{2, -4});
    // Elected among what was left: with one of two dropped, the other is the result.
    const Values elected = merged(Combination::dare_ties, {Values(400, 1.0), Values(400, -1.0)}, {1, 1}, 0.5);
    for (const double value : elected) {
        CHECK((value == 2 || value == -2 || value == 0));
    }
    CHECK(std::count(elected.begin(), elected.end(), -2.0) > 50);
}

TEST_CASE("pruning acts on the factors, or with _svd on the changes themselves") {
    Rng rng(4);
    const std::vector<Factors> sources{source(6, 5, 2, 4, rng), source(6, 5, 2, 0.25, rng)};
    const Factors found = combine(sources, {2, 3}, options(Combination::magnitude_prune, 1.0), "l");
    const Factors linear = combine(sources, {2, 3}, options(Combination::linear), "l");
    CHECK(relative_error(found.a, linear.a) <= 1e-15); // nothing pruned: linear
    for (const Combination type : {Combination::ties_svd, Combination::dare_ties_svd, Combination::dare_linear_svd,
                                   Combination::magnitude_prune_svd}) {
        CombineOptions o = options(type, 0.4);
        o.svd_rank = 5;
        const Factors cut = combine(sources, {2, 3}, o, "l");
        Rng same(o.seed, dropout_site("l"));
        const Values expected =
            merge_tasks<double>({change(sources[0]).to_vector(), change(sources[1]).to_vector()}, {2, 3}, o, same);
        CHECK(relative_error(change(cut), X::from(expected, {6, 5})) <= 1e-12);
    }
    // The scale belongs to the source: a change written with another s and the same product gives the same.
    std::vector<Factors> rescaled = sources;
    rescaled[0].scale = 1;
    rescaled[0].a = leaf(sources[0].a.detach() * 2.0);
    rescaled[0].b = leaf(sources[0].b.detach() * 2.0);
    const CombineOptions ties = options(Combination::ties, 0.5);
    CHECK(relative_error(combine(rescaled, {1, 1}, ties, "l").a, combine(sources, {1, 1}, ties, "l").a) <= 1e-15);
}

TEST_CASE("what does not fit is refused by name") {
    Rng rng(5);
    std::vector<Factors> sources{source(6, 5, 2, 1, rng), source(6, 5, 3, 1, rng)};
    const auto message = [&](const CombineOptions& o, const Values& weights = {1, 1}) {
        return refusal([&] { combine(sources, weights, o, "h.0.c_attn"); });
    };
    CHECK(message(options(Combination::linear)).find("h.0.c_attn: linear: the adapters' ranks differ") !=
          std::string::npos);
    CHECK(message(options(Combination::cat), {1}).find("1 weights for 2") != std::string::npos);
    CHECK(message(options(Combination::cat), {1, NAN}).find("finite") != std::string::npos);
    CHECK(message(options(Combination::ties)).find("density: ties needs one") != std::string::npos);
    CHECK(message(options(Combination::cat, 0.5)).find("density: cat has none") != std::string::npos);
    CHECK(message(options(Combination::ties, 0.0)).find("density") != std::string::npos);
    CHECK(message(options(Combination::dare_ties, 1.5)).find("density") != std::string::npos);
    CombineOptions ranked = options(Combination::cat);
    ranked.svd_rank = 4;
    CHECK(message(ranked).find("svd_rank") != std::string::npos);
    sources[1] = source(6, 5, 2, 1, rng);
    sources[1].b_bias = X::zeros({6});
    CHECK(message(options(Combination::ties, 0.5)).find("lora_bias") != std::string::npos);
    CHECK(message(options(Combination::cat)).empty());
    sources[1] = Factors();
    sources[1].delta = X::zeros({6, 5});
    CHECK(message(options(Combination::cat)).find("DoRA") != std::string::npos);
    CHECK(message(options(Combination::svd)).empty());
    sources.erase(sources.begin());
    CHECK(message(options(Combination::svd), {1}).find("give a rank") != std::string::npos);
    CHECK(combination_from_name("dare_ties_svd") == Combination::dare_ties_svd);
    CHECK(combination_names().size() == 11);
    for (const std::string& name : combination_names()) {
        CHECK(detail::traits_of(combination_from_name(name)).name == name);
    }
    CHECK(refusal([] { combination_from_name("sum"); }).find("'sum'") != std::string::npos);
}
