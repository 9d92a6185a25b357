// AdaLoRA: a linear layer plus a trained singular value decomposition, of which a layer keeps as many values as matter.
// Zhang et al., "Adaptive budget allocation for parameter-efficient fine-tuning", 2023.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/adapters/adalora_config.hpp"
#include "lowrank/adapters/lora.hpp"
#include "lowrank/adapters/stored_values.hpp"
#include "lowrank/core/random.hpp"
#include "lowrank/nn/initialize.hpp"
#include "lowrank/nn/module.hpp"
#include "lowrank/ops/gather.hpp"
#include "lowrank/ops/matmul.hpp"
#include "lowrank/ops/reduce.hpp"

namespace lowrank {

/// y = base(x) + s·B(E ⊙ A(dropout(x))), where A [r, in], B [out, r] and the singular values E [r, 1] are trained. A
/// row of A, its value and its column of B are a triplet; one that is not kept has a value of 0. s is α over the rank
/// at the start, whatever is kept of it.
template <class T, DeviceTag D>
class AdaLora final : public Lora<T, D> {
  public:
    using C = compute_t<T>;

    /// `site` numbers the random stream of the dropout.
    AdaLora(Tensor<C, D> a, Tensor<C, D> b, Tensor<C, D> e, double scale, double dropout, std::uint32_t site)
        : Lora<T, D>(std::move(a), std::move(b), {}, scale, dropout, site),
          e_(leaf(e)),
          kept_(static_cast<std::size_t>(e.numel()), true) {
        if (e_.shape() != Shape{this->r(), 1}) {
            throw ShapeError(
                concat("adalora: singular values: found shape ", e_.shape(), ", expected [", this->r(), ", 1]"));
        }
    }

    void parameters(const std::function<void(const std::string&, Tensor<C, D>&)>& visit) override {
        visit("lora_A", this->a_);
        visit("lora_B", this->b_);
        visit("lora_E", e_);
    }

    const Tensor<C, D>& a() const { return this->a_; }
    const Tensor<C, D>& b() const { return this->b_; }
    const Tensor<C, D>& e() const { return e_; }

    /// Which of the r triplets are kept.
    const std::vector<bool>& kept() const { return kept_; }

    /// Throws ShapeError where there is not a mark for each.
    void keep(const std::vector<bool>& kept) {
        if (kept.size() != kept_.size()) {
            throw ShapeError(concat("adalora: found ", kept.size(), " marks for ", kept_.size(), " triplets"));
        }
        kept_ = kept;
    }

    /// Sets the values of those that are not kept to 0, as of now: an update may change them again.
    void mask() {
        std::vector<C> values = e_.to_vector();
        for (std::size_t i = 0; i < values.size(); ++i) {
            values[i] = kept_[i] ? values[i] : C(0);
        }
        D::copy_from_host(e_.mutable_data(), values.data(), values.size() * sizeof(C));
    }

  private:
    Tensor<C, D> factor_a() const override { return this->a_ * e_; }

    Tensor<C, D> e_;
    std::vector<bool> kept_;
};

/// AdaLoRA's adapter of a linear layer. Tensors that `values` does not have are drawn from `rng` as PEFT draws them.
template <class T, DeviceTag D>
std::shared_ptr<LinearAdapter<T, D>>
make_adapter(const AdaLoraConfig& config, const std::string& path, const Linear<T, D>& layer, Rng& rng,
             const StoredValues<compute_t<T>, D>& values, const SharedTensors<compute_t<T>, D>&) {
    using C = compute_t<T>;
    const std::int64_t r = rank_at(config, path);
    const auto value = [&](const char* name, const Shape& shape, double deviation) {
        return detail::stored_or(values, name, shape,
                                 [&] { return detail::drawn<C, D>(shape, [&] { return deviation * rng.normal(); }); });
    };
    const double deviation = config.init_lora_weights ? 0.02 : 1;
    const Tensor<C, D> a = value("lora_A", {r, layer.weight.in()}, deviation);
    const Tensor<C, D> b = value("lora_B", {layer.weight.out(), r}, deviation);
    const Tensor<C, D> e = value("lora_E", {r, 1}, config.init_lora_weights ? 0 : 1);
    return std::make_shared<AdaLora<T, D>>(a, b, e, config.lora_alpha / (static_cast<double>(config.init_r) + 1e-5),
                                           config.lora_dropout, dropout_site(path + ".lora_dropout"));
}

/// An adapted layer's path and its adapter.
template <class T, DeviceTag D>
using AdaLoraAt = std::pair<std::string, std::shared_ptr<AdaLora<T, D>>>;

/// The AdaLoRA adapters of a model, in the order of its layers.
template <class T, DeviceTag D, Module M>
std::vector<AdaLoraAt<T, D>> adalora_adapters(M& model) {
    std::vector<AdaLoraAt<T, D>> adapters;
    for_each<Linear<T, D>>(model, [&](const std::string& path, Linear<T, D>& layer) {
        if (auto adapter = std::dynamic_pointer_cast<AdaLora<T, D>>(layer.adapter)) {
            adapters.emplace_back(path, std::move(adapter));
        }
    });
    return adapters;
}

namespace detail {

/// ‖RRᵀ - I‖, by Frobenius, of a matrix R; its gradient is 0 where it is 0.
template <class C, DeviceTag D>
Tensor<C, D> distance_from_orthogonal(const Tensor<C, D>& rows) {
    const std::int64_t r = rows.size(0);
    std::vector<C> identity(static_cast<std::size_t>(r * r));
    for (std::size_t i = 0; i < identity.size(); i += static_cast<std::size_t>(r) + 1) {
        identity[i] = C(1);
    }
    const Tensor<C, D> apart = matmul(rows, transpose(rows, 0, 1)) - Tensor<C, D>::from(identity, {r, r});
    return sqrt(sum(square(apart)) + static_cast<double>(std::numeric_limits<C>::min()));
}

} // namespace detail

/// How far the factors are from orthogonal: the mean of ‖AAᵀ - I‖ and ‖BᵀB - I‖ over all adapters, a scalar with a
/// graph; undefined without adapters. Equation 4 of the paper, as PEFT computes it.
template <class T, DeviceTag D>
Tensor<compute_t<T>, D> orthogonality(const std::vector<AdaLoraAt<T, D>>& adapters) {
    Tensor<compute_t<T>, D> total;
    for (const auto& entry : adapters) {
        const auto both = detail::distance_from_orthogonal(entry.second->a()) +
                          detail::distance_from_orthogonal(transpose(entry.second->b(), 0, 1));
        total = total.defined() ? total + both : both;
    }
    return total.defined() ? total / static_cast<double>(2 * adapters.size()) : total;
}

/// What a file holds: of each layer the triplets that are kept, and in rank_pattern which ones of init_r these are.
/// `saved(name)` is the tensor that will be written under a name such as "….c_attn.lora_A". Throws OptionError without
/// total_step, since PEFT opens no such file.
template <class T, DeviceTag D, Module M, class Saved>
void prepare_saved(AdaLoraConfig& config, M& model, const Saved& saved) {
    detail::require_setting(config.total_step > 0, "AdaLoRA settings", "total_step", "0", "the steps of the training");
    std::map<std::string, std::vector<bool>> pattern;
    bool all_kept = true;
    for (const auto& [path, adapter] : adalora_adapters<T, D>(model)) {
        const std::vector<bool>& kept = adapter->kept();
        const auto before = config.rank_pattern.find(path);
        std::vector<bool> marks = before != config.rank_pattern.end()
                                      ? before->second
                                      : std::vector<bool>(static_cast<std::size_t>(config.init_r), true);
        const auto held = static_cast<std::size_t>(std::count(marks.begin(), marks.end(), true));
        detail::require_setting(held == kept.size(), "AdaLoRA settings", "rank_pattern." + path,
                                concat(held, " triplets"), concat(kept.size(), ", as the adapter has"));
        std::vector<std::int64_t> rows;
        std::size_t i = 0;
        for (std::vector<bool>::reference mark : marks) {
            if (mark) {
                mark = kept[i];
                if (kept[i]) {
                    rows.push_back(static_cast<std::int64_t>(i));
                }
                ++i;
            }
        }
        const auto index = Tensor<std::int64_t, D>::from(rows, {static_cast<std::int64_t>(rows.size())});
        for (const auto& [name, dim] : {std::pair(".lora_A", 0), std::pair(".lora_B", 1), std::pair(".lora_E", 0)}) {
            Tensor<compute_t<T>, D>& tensor = saved(path + name);
            tensor = index_select(tensor.detach(), dim, index);
        }
        all_kept = all_kept && std::find(marks.begin(), marks.end(), false) == marks.end();
        pattern[path] = std::move(marks);
    }
    if (!all_kept || !config.rank_pattern.empty()) {
        config.rank_pattern = std::move(pattern);
    }
}

} // namespace lowrank
