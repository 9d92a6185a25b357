// VeRA: two frozen random matrices that all layers share, and two trained vectors for each layer.
// Kopiczko, Blankevoort and Asano, "VeRA: vector-based random matrix adaptation", 2024, equation 2.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/adapters/lora.hpp"
#include "lowrank/adapters/stored_values.hpp"
#include "lowrank/adapters/vera_config.hpp"
#include "lowrank/ops/views.hpp"

namespace lowrank {

/// The shared projections: A [r, most inputs of a layer] and B [most outputs, r].
template <class C, DeviceTag D>
struct VeraProjections {
    Tensor<C, D> a, b;
};

/// y = base(x) + λb ⊙ (B[:out] (λd ⊙ (A[:, :in] dropout(x)))), where λd [r] and λb [out] are trained. A layer takes the
/// first columns of A and the first rows of B. The base is any weight.
template <class T, DeviceTag D>
class Vera final : public LinearAdapter<T, D> {
  public:
    using C = compute_t<T>;

    /// `a` [r, in] holds the layer's columns of `shared.a`, contiguous: layers of the same width share them.
    Vera(VeraProjections<C, D> shared, Tensor<C, D> a, std::int64_t out, Tensor<C, D> lambda_d, Tensor<C, D> lambda_b,
         double dropout, std::uint32_t site)
        : shared_(std::move(shared)),
          a_(std::move(a)),
          b_(slice(shared_.b, 0, 0, out)),
          lambda_d_(leaf(lambda_d)),
          lambda_b_(leaf(lambda_b)),
          dropout_(dropout),
          site_(site) {}

    Tensor<T, D> forward(const Linear<T, D>& layer, const Tensor<T, D>& x, const Epilogue<T, D>& epilogue,
                         const ForwardContext<D>& context) const override {
        return linear(x, layer.weight, epilogue, {term(x, context)});
    }

    bool low_rank_terms(const Linear<T, D>&, const Tensor<T, D>& x, const ForwardContext<D>& context,
                        std::vector<LowRankTerm<T, D>>& terms) const override {
        terms.push_back(term(x, context));
        return true;
    }

    Tensor<C, D> merged(const Linear<T, D>& layer) const override {
        const NoGrad no_grad;
        return plus_product(layer.weight, scaled_b(), a_ * reshape(lambda_d_, {lambda_d_.numel(), 1}), 1);
    }

    void parameters(const std::function<void(const std::string&, Tensor<C, D>&)>& visit) override {
        visit("vera_lambda_b", lambda_b_);
        visit("vera_lambda_d", lambda_d_);
    }

    void shared_tensors(const std::function<void(const std::string&, Tensor<C, D>&)>& visit) override {
        visit("base_model.vera_A", shared_.a);
        visit("base_model.vera_B", shared_.b);
    }

  private:
    LowRankTerm<T, D> term(const Tensor<T, D>& x, const ForwardContext<D>& context) const {
        const Tensor<T, D> xd = context.training && dropout_ > 0 ? dropout(x, dropout_, context.seed, site_) : x;
        Epilogue<T, D> epilogue;
        epilogue.column_scale = lambda_d_;
        return {linear(xd, WeightSlot<C, D>(a_, Orientation::out_in), epilogue), scaled_b()};
    }

    /// λb on the rows of B: the rows of tokens are many more, and a scale of theirs would have to be kept.
    Tensor<C, D> scaled_b() const { return b_ * reshape(lambda_b_, {lambda_b_.numel(), 1}); }

    VeraProjections<C, D> shared_;
    Tensor<C, D> a_, b_, lambda_d_, lambda_b_;
    double dropout_;
    std::uint32_t site_;
};

/// The projections for all layers, and of A the columns of each width. New ones are U(±√(6/fan-in)), PEFT's kaiming,
/// from a seed of their own: what they are does not depend on the adapter's.
template <class T, DeviceTag D>
SharedTensors<compute_t<T>, D> make_shared_tensors(const VeraConfig& config, const TargetLayers<T, D>& layers,
                                                   std::uint64_t, const StoredValues<compute_t<T>, D>& values) {
    using C = compute_t<T>;
    std::int64_t in = 0, out = 0;
    for (const auto& [path, layer] : layers) {
        in = std::max(in, layer->weight.in());
        out = std::max(out, layer->weight.out());
    }
    const auto projection = [&](const std::string& name, const Shape& shape) {
        return detail::stored_or(values, name, shape, [&] {
            Rng rng(static_cast<std::uint64_t>(config.projection_prng_key), dropout_site(name));
            const double bound = std::sqrt(6 / static_cast<double>(shape[1]));
            return detail::drawn<C, D>(shape, [&] { return rng.uniform(-bound, bound); });
        });
    };
    SharedTensors<C, D> shared;
    const Tensor<C, D> a = projection("base_model.vera_A", {config.r, in});
    for (const auto& [path, layer] : layers) {
        const std::int64_t columns = layer->weight.in();
        if (const std::string name = concat("A of ", columns); !shared.contains(name)) {
            shared[name] = contiguous(slice(a, 1, 0, columns));
        }
    }
    shared["A"] = a;
    shared["B"] = projection("base_model.vera_B", {out, config.r});
    return shared;
}

/// VeRA's adapter of a linear layer.
template <class T, DeviceTag D>
std::shared_ptr<LinearAdapter<T, D>>
make_adapter(const VeraConfig& config, const std::string& path, const Linear<T, D>& layer, Rng& rng,
             const StoredValues<compute_t<T>, D>& values, const SharedTensors<compute_t<T>, D>& shared) {
    using C = compute_t<T>;
    const std::int64_t r = config.r, out = layer.weight.out();
    const Tensor<C, D> lambda_d = detail::stored_or(values, "vera_lambda_d", {r}, [&] {
        return config.init_weights ? Tensor<C, D>::full({r}, static_cast<C>(config.d_initial))
                                   : detail::drawn<C, D>({r}, [&] { return rng.normal(); });
    });
    const Tensor<C, D> lambda_b = detail::stored_or(
        values, "vera_lambda_b", {out}, [&] { return Tensor<C, D>::full({out}, config.init_weights ? C(0) : C(1)); });
    return std::make_shared<Vera<T, D>>(VeraProjections<C, D>{shared.at("A"), shared.at("B")},
                                        shared.at(concat("A of ", layer.weight.in())), out, lambda_d, lambda_b,
                                        config.vera_dropout, dropout_site(path + ".vera_dropout"));
}

} // namespace lowrank
