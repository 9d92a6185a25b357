// Factors that start from the base or from data: PiSSA and EVA against PEFT, OLoRA and LoftQ by their formulas.

#include <algorithm>
#include <cmath>

#include "../io/temporary_directory.hpp"
#include "lowrank/adapters/initial_eva.hpp"
#include "lowrank/adapters/initial_loftq.hpp"
#include "lowrank/adapters/merge.hpp"
#include "lowrank/adapters/peft_files.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"
#include "models_testing.hpp"
#include "random_tensor.hpp"

using namespace lowrank;
using lowrank::testing::fixture;
using lowrank::testing::ids_of;
using lowrank::testing::random_tensor;
using lowrank::testing::relative_error;
using lowrank::testing::tensor_of;

namespace {

using X = Tensor<float>;
using Model = Gpt2<float>;

const SafetensorsFile& reference() {
    static const SafetensorsFile file = SafetensorsFile::open(fixture("peft_starts.safetensors"));
    return file;
}

/// The settings of the script that made the reference.
LoraConfig settings(const std::string& init) {
    LoraConfig config;
    config.r = 3;
    config.lora_alpha = 5;
    config.target_modules = std::vector<std::string>{"c_attn", "c_proj"};
    set_init_lora_weights(config, init);
    return config;
}

Model base() {
    return load_gpt2<float>(fixture("peft_base"));
}

/// Calls `visit(path, layer, A, B)`, with the adapter's own tensors, for every adapted layer.
template <class Visit>
void for_each_adapted(Model& model, const Visit& visit) {
    for_each<Linear<float, Cpu>>(model, [&](const std::string& path, Linear<float, Cpu>& layer) {
        if (layer.adapter) {
            X* factors[2] = {};
            layer.adapter->parameters(
                [&](const std::string& name, X& values) { factors[name == "lora_A.weight" ? 0 : 1] = &values; });
            visit(path, layer, *factors[0], *factors[1]);
        }
    });
}

/// Writes values where a tensor lies, as an optimizer does.
void write(X& to, const X& values) {
    std::copy_n(values.data(), values.numel(), to.mutable_data());
}

X logits(const Model& model, const Tensor<std::int32_t>& ids) {
    const NoGrad no_grad;
    return model.logits(model.hidden(ids));
}

/// Saves shifted adapters as plain LoRA, puts them on the untouched base, and compares.
void check_saved(Model& model, const LoraConfig& config, const Tensor<std::int32_t>& ids) {
    const X expected = logits(model, ids);
    const TemporaryDirectory directory;
    {
        const PlainLoraScope<float, Cpu> plain(model);
        CHECK_FALSE(plain.empty());
        CHECK(relative_error(logits(model, ids), expected) <= 3e-6);
    }
    save_plain_adapter<float, Cpu>(model, config, directory.path());
    Model loaded = base();
    const auto read = std::get<LoraConfig>(load_adapter<float, Cpu>(loaded, directory.path()));
    CHECK(read.r == 2 * config.r);
    CHECK(read.init_lora_weights == LoraInit::kaiming);
    CHECK(relative_error(logits(loaded, ids), expected) <= 3e-6);

    auto merged = merge<float, Cpu>(model);
    CHECK(relative_error(logits(model, ids), expected) <= 3e-6);
    merged.unmerge();
    CHECK(logits(model, ids).to_vector() == expected.to_vector());
}

} // namespace

TEST_CASE("PiSSA starts as PEFT's, changes nothing, and is saved for the untouched base") {
    const Tensor<std::int32_t> ids = ids_of(reference(), "ids");
    const X expected = logits(base(), ids);
    for (const char* init : {"pissa", "pissa_niter_8"}) {
        CAPTURE(init);
        const LoraConfig config = settings(init);
        const double close = config.pissa_niter < 0 ? 1e-4 : 2e-2; // these singular values fall slowly
        Model model = base();
        CHECK(attach_from_base<float, Cpu>(model, config, 1).size() == 6);
        CHECK(relative_error(logits(model, ids), expected) <= 3e-6);
        const float s = 5.0f / 3;
        for_each_adapted(model, [&](const std::string& path, const Linear<float, Cpu>& layer, X& a, X& b) {
            CAPTURE(path);
            const NoGrad no_grad;
            const X peft_a = tensor_of(reference(), "pissa." + path + ".a");
            const X peft_b = tensor_of(reference(), "pissa." + path + ".b");
            CHECK(relative_error(matmul(b, a), matmul(peft_b, peft_a)) <= close); // singular vectors but for signs
            CHECK(relative_error(sum(a * a, {1}), sum(peft_a * peft_a, {1})) <= close);
            CHECK(relative_error(dense_values(layer.weight) - contiguous(transpose(matmul(b, a))) * double(s),
                                 tensor_of(reference(), "pissa." + path + ".residual")) <= close);
            write(a, tensor_of(reference(), "moved." + path + ".a"));
            write(b, tensor_of(reference(), "moved." + path + ".b"));
        });
        CHECK(relative_error(logits(model, ids), tensor_of(reference(), "logits")) <= close);
        CHECK(relative_error(logits(model, ids), expected) > 1e-2);
        check_saved(model, config, ids);
        CHECK(trainable_tensors<float, Cpu>(model).size() == 12); // what was taken off is constant
    }
    LoraConfig rs = settings("pissa");
    rs.use_rslora = true;
    rs.rank_pattern = {{"c_attn", 2}};
    rs.alpha_pattern = {{"mlp.c_proj", 7}};
    Model model = base();
    attach_from_base<float, Cpu>(model, rs, 1);
    for_each_adapted(model,
                     [](const std::string&, const Linear<float, Cpu>&, X& a, X&) { write(a, a.detach() * 2.0); });
    check_saved(model, rs, ids);
}

TEST_CASE("OLoRA starts as the first columns of a QR") {
    const Tensor<std::int32_t> ids = ids_of(reference(), "ids");
    Model model = base();
    const X expected = logits(model, ids);
    attach_from_base<float, Cpu>(model, settings("olora"), 1);
    CHECK(relative_error(logits(model, ids), expected) <= 3e-6);
    for_each_adapted(model, [&](const std::string&, const Linear<float, Cpu>& layer, X& a, X& b) {
        const X w = as_out_in(dense_values(layer.weight), layer.weight.orientation());
        const Qr<float, Cpu> full = qr(w);
        CHECK(relative_error(b, contiguous(slice(full.q, 1, 0, 3))) <= 1e-5);
        CHECK(relative_error(a, contiguous(slice(full.r, 0, 0, 3))) <= 1e-5);
        write(b, b.detach() * 1.5);
    });
    CHECK(relative_error(logits(model, ids), expected) > 1e-2);
    check_saved(model, settings("olora"), ids);

    // In training the dropout is the trained part's alone, as over a changed base.
    LoraConfig dropping = settings("olora");
    dropping.lora_dropout = 0.5;
    Model trained = base();
    attach_from_base<float, Cpu>(trained, dropping, 1);
    ForwardContext<Cpu> context;
    context.training = true;
    context.seed = Tensor<std::int64_t>::scalar(3);
    const Linear<float, Cpu>& layer = trained.transformer.h[0].attn.c_attn;
    Rng rng(2);
    const X x = random_tensor<float>({4, 24}, rng);
    const NoGrad no_grad;
    Linear<float, Cpu> residual = layer;
    for_each_adapted(trained, [&](const std::string& path, const Linear<float, Cpu>&, X& a, X& b) {
        if (path == "transformer.h.0.attn.c_attn") {
            residual.weight = WeightSlot<float, Cpu>(
                dense_values(layer.weight) - contiguous(transpose(matmul(b, a))) * (5.0 / 3), Orientation::in_out);
            residual.adapter =
                std::make_shared<Lora<float, Cpu>>(a, b, X(), 5.0 / 3, 0.5, dropout_site(path + ".lora_dropout"));
        }
    });
    CHECK(relative_error(layer.forward(x, context), residual.forward(x, context)) <= 1e-5);
}

TEST_CASE("EVA gives the layers PEFT's ranks, directions and alphas") {
    const Tensor<std::int32_t> ids = ids_of(reference(), "eva.ids");
    const std::vector<std::int32_t> ranks = ids_of(reference(), "eva.ranks").to_vector();
    Model model = base();
    int batches = 0;
    const auto next = [&](Tensor<std::int32_t>& rows) {
        rows = {};
        model.hidden(ids);
        return ++batches > 0;
    };
    const LoraConfig found = attach_eva<float, Cpu>(model, settings("eva"), 1, EvaOptions(), next);
    CHECK(batches == 2); // the second one changed no direction
    std::size_t k = 0;
    for_each_adapted(model, [&](const std::string& path, const Linear<float, Cpu>&, X& a, X& b) {
        CAPTURE(path);
        const X peft = tensor_of(reference(), "eva." + path + ".a");
        REQUIRE(a.shape() == peft.shape());
        CHECK(a.size(0) == ranks[k++]);
        CHECK(a.node() != nullptr);
        const X cosines = sum(a.detach() * peft, {1});
        for (const float cosine : cosines.to_vector()) {
            CHECK(std::abs(cosine) == doctest::Approx(1).epsilon(1e-4));
        }
        CHECK(b.to_vector() == std::vector<float>(static_cast<std::size_t>(b.numel()), 0));
        CHECK(rank_at(found, path) == a.size(0));
        CHECK(alpha_at(found, path) == doctest::Approx(5.0 / 3 * static_cast<double>(a.size(0))));
    });
    CHECK(relative_error(logits(model, ids), logits(base(), ids)) == 0);

    // Only some tokens count, a large budget takes all from a few, and whitening divides.
    EvaOptions options;
    options.rho = 1;
    options.whiten = true;
    options.adjust_scaling_factors = false;
    std::vector<std::int32_t> counted;
    for (std::int32_t i = 0; i < 100; i += 2) {
        counted.push_back(i);
    }
    Model other = base();
    int left = 3;
    const LoraConfig equal =
        attach_eva<float, Cpu>(other, settings("eva"), 1, options, [&](Tensor<std::int32_t>& rows) {
            rows = Tensor<std::int32_t>::from(counted, {50});
            other.hidden(ids);
            return left-- > 0;
        });
    CHECK(equal.rank_pattern.empty()); // with a rho of 1 nothing moves
    CHECK(equal.alpha_pattern.empty());
    Model bare = base();
    CHECK_THROWS_AS(
        (attach_eva<float, Cpu>(bare, settings("eva"), 1, options, [](Tensor<std::int32_t>&) { return false; })),
        NumericError);
    options.rho = 0.5;
    CHECK_THROWS_AS(
        (attach_eva<float, Cpu>(bare, settings("eva"), 1, options, [](Tensor<std::int32_t>&) { return false; })),
        OptionError);
}

TEST_CASE("LoftQ: quantized base and factors together are nearer to the matrix, the more so by turns") {
    Rng rng(5);
    const X w = random_tensor<float>({48, 64}, rng);
    const auto distance = [&](const Weight<Cpu>& weight, const LoraStart<float, Cpu>* factors, double s) {
        X rest = as_out_in(w, Orientation::in_out) - as_out_in(weight.dense_copy<float>(), Orientation::in_out);
        if (factors != nullptr) {
            rest = rest - matmul(factors->b, factors->a) * s;
        }
        return std::sqrt(sum(rest * rest).item());
    };
    const DenseWeight<float, Cpu> original(w, Orientation::in_out);
    for (const double s : {1.0, 0.25}) {
        const auto plain = Nf4Weight<Cpu>::quantized(original, {});
        const Loftq<float, Cpu> one = loftq<float>(original, 8, s, 1, {}), five = loftq<float>(original, 8, s, 5, {});
        CHECK(one.base->storage() == "NF4");
        CHECK(one.base->dense_copy<float>().to_vector() == plain->dense_copy<float>().to_vector());
        const float before = distance(*plain, nullptr, s), after = distance(*one.base, &one.factors, s);
        CHECK(after < 0.85 * before);
        CHECK(distance(*five.base, &five.factors, s) < after);
        // The best that rank 8 can do for this base.
        const X rest = as_out_in(w, Orientation::in_out) - as_out_in(plain->dense_copy<float>(), Orientation::in_out);
        const std::vector<float> values = svd(rest, 48).s.to_vector();
        double left = 0;
        for (std::size_t i = 8; i < values.size(); ++i) {
            left += double(values[i]) * double(values[i]);
        }
        CHECK(after == doctest::Approx(std::sqrt(left)).epsilon(1e-4));
    }
    CHECK_THROWS_AS(loftq<float>(original, 8, 1, 0, {}), OptionError);

    const Tensor<std::int32_t> ids = ids_of(reference(), "ids");
    const X full = logits(base(), ids);
    std::vector<double> errors;
    const auto started = [&](int iterations, bool use_dora) {
        Model dense = base(), model = load_gpt2<float>(fixture("peft_base"), {.nf4 = Nf4Options()});
        LoraConfig config = settings("loftq");
        config.use_dora = use_dora;
        config.target_modules = ModuleSelection("all-linear");
        config.r = 6;
        if (iterations > 0) {
            const auto weight_at = [&](const std::string& path) {
                std::shared_ptr<const Weight<Cpu>> found;
                for_each<Linear<float, Cpu>>(dense, [&](const std::string& other, Linear<float, Cpu>& layer) {
                    found = other == path ? layer.weight.frozen() : found;
                });
                return found;
            };
            attach_loftq<float>(model, config, 1, weight_at, iterations);
        }
        return logits(model, ids);
    };
    for (const int iterations : {0, 1, 6}) {
        const X found = started(iterations, false);
        errors.push_back(relative_error(found, full));
        // DoRA's magnitudes are the norms of what it starts as, so that it starts as LoRA.
        CHECK(relative_error(started(iterations, true), found) <= 1e-5);
    }
    CHECK(errors[1] < errors[0]);
    CHECK(errors[2] < errors[0]);
}

TEST_CASE("starts have PEFT's names, and one that needs the base or data is not drawn silently") {
    LoraConfig config = settings("pissa_niter_16");
    CHECK(config.init_lora_weights == LoraInit::pissa);
    CHECK(config.pissa_niter == 16);
    CHECK(settings("pissa").pissa_niter == -1);
    for (const char* name : {"pissa_niter_", "pissa_niter_x", "pissa_niter_1000", "svd", "", "True"}) {
        CHECK_THROWS_AS(set_init_lora_weights(config, name), OptionError);
    }
    for (const char* name : {"pissa", "olora", "loftq", "eva"}) {
        Model model = base();
        CHECK_THROWS_AS((attach_adapter<float, Cpu>(model, settings(name), 1)), OptionError);
    }
    config = settings("pissa");
    config.use_dora = true;
    Model model = base();
    CHECK_THROWS_AS((attach_from_base<float, Cpu>(model, config, 1)), OptionError);
    config = settings("olora");
    config.r = 100;
    CHECK_THROWS_AS((attach_from_base<float, Cpu>(model, config, 1)), ShapeError);
}
