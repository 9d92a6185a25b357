// PiSSA and OLoRA: factors that start as the largest part of the matrix that they adapt.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "lowrank/adapters/attach.hpp"
#include "lowrank/adapters/peft_files.hpp"
#include "lowrank/adapters/shifted_lora.hpp"
#include "lowrank/adapters/svd.hpp"

namespace lowrank {

/// s·BA = the matrix of these singular values, √(S/|s|) of them in each factor.
template <class C, DeviceTag D>
LoraStart<C, D> balanced_factors(const Svd<C, D>& svd, double s) {
    const NoGrad no_grad;
    const Tensor<C, D> roots = sqrt(svd.s * (1 / std::abs(s)));
    return {reshape(roots, {roots.size(0), 1}) * svd.vt, svd.u * roots * std::copysign(1.0, s)};
}

/// B·A = the r largest singular values' part of W [out, in] divided by s: A = √(S/s)·Vᵀ, B = U·√(S/s). With
/// `iterations` of 0 or more by random projection and as many power iterations; exactly otherwise. Throws ShapeError
/// where r is no rank that W can have.
/// Meng, Wang and Zhang, "PiSSA: principal singular values and singular vectors adaptation", 2024.
template <class C, DeviceTag D>
LoraStart<C, D> pissa_factors(const Tensor<C, D>& w, std::int64_t r, double s, int iterations, std::uint64_t seed) {
    return balanced_factors(iterations < 0 ? leading_svd(w, r, seed) : randomized_svd(w, r, iterations, seed), s);
}

/// B = the first r columns of Q and A = the first r rows of R, where W [out, in] = QR: these columns are those of a QR
/// of W's first r columns alone. Throws ShapeError as pissa_factors.
/// Büyükakyüz, "OLoRA: orthonormal low-rank adaptation of large language models", 2024.
template <class C, DeviceTag D>
LoraStart<C, D> olora_factors(const Tensor<C, D>& w, std::int64_t r) {
    detail::check_svd(w, r);
    LoraStart<C, D> factors;
    factors.b = qr(contiguous(slice(w, 1, 0, r))).q;
    factors.a = matmul(transpose(factors.b), w);
    return factors;
}

namespace detail {

/// Gives an adapter other factors; those that are trained stay so.
template <class C, DeviceTag D, class Adapter>
void set_factors(Adapter& adapter, const LoraStart<C, D>& start) {
    adapter.parameters([&](const std::string& name, Tensor<C, D>& values) {
        if (const Tensor<C, D>& given = name == "lora_A.weight" ? start.a : start.b;
            name == "lora_A.weight" || name == "lora_B.weight") {
            values = values.node() ? leaf(given) : given;
        }
    });
}

/// The config with factors that start at random, for whoever replaces them.
inline LoraConfig drawn_start(LoraConfig config) {
    config.init_lora_weights = LoraInit::kaiming;
    return config;
}

} // namespace detail

/// attach_adapter for a config whose factors start as pissa or olora; their embeddings start as others do. The base
/// stays what it is, see ShiftedLora, and save_plain_adapter writes them for it. Returns the paths of the adapted
/// layers. Throws as attach_adapter, and ShapeError for a rank that a layer cannot have.
template <class T, DeviceTag D, Module M>
std::vector<std::string> attach_from_base(M& model, const LoraConfig& config, std::uint64_t seed) {
    using C = compute_t<T>;
    validate(config, "adapter settings");
    const std::vector<std::string> paths = attach_adapter<T, D>(model, detail::drawn_start(config), seed);
    const NoGrad no_grad;
    for_each<Linear<T, D>>(model, [&](const std::string& path, Linear<T, D>& layer) {
        if (!layer.adapter) {
            return;
        }
        const std::int64_t r = rank_at(config, path);
        const double s = lora_scale(alpha_at(config, path), r, config.use_rslora);
        const Tensor<C, D> w = as_out_in(dense_values(layer.weight), layer.weight.orientation());
        const LoraStart<C, D> start = config.init_lora_weights == LoraInit::olora
                                          ? olora_factors(w, r)
                                          : pissa_factors(w, r, s, config.pissa_niter, seed);
        detail::set_factors(*layer.adapter, start);
        layer.adapter = std::make_shared<ShiftedLora<T, D>>(layer.adapter, start, s);
    });
    return paths;
}

/// The settings of the same adapters as plain LoRA of twice the rank, with the same s.
inline LoraConfig doubled_config(LoraConfig config) {
    const double more = config.use_rslora ? std::sqrt(2.0) : 2;
    config.r *= 2;
    config.lora_alpha *= more;
    for (auto& entry : config.rank_pattern) {
        entry.second *= 2;
    }
    for (auto& entry : config.alpha_pattern) {
        entry.second *= more;
    }
    config.init_lora_weights = LoraInit::kaiming;
    return config;
}

/// save_adapter, and where the adapters started as PiSSA or OLoRA, they are written as plain LoRA of twice the rank,
/// for the base as it was. Throws as save_adapter.
template <class T, DeviceTag D, Module M>
void save_plain_adapter(M& model, const AdapterConfig& config, const std::filesystem::path& directory) {
    const PlainLoraScope<T, D> plain(model);
    save_adapter<T, D>(model, plain.empty() ? config : doubled_config(std::get<LoraConfig>(config)), directory);
}

} // namespace lowrank
