// custom_adapter: an adapter of one's own for linear layers, trained and merged into the matrix.

#include <cmath>
#include <cstdio>

#include <lowrank/lowrank.hpp>

using namespace lowrank;

/// y = s ⊙ (x·Wᵀ) + bias, with s [out] trained.
template <class T, DeviceTag D>
class OutputScale final : public LinearAdapter<T, D> {
  public:
    using C = compute_t<T>;
    explicit OutputScale(std::int64_t out) : scale_(constant_parameter<C, D>({out}, 1)) {}

    Tensor<T, D> forward(const Linear<T, D>& layer, const Tensor<T, D>& x, const Epilogue<T, D>& epilogue,
                         const ForwardContext<D>&) const override {
        Epilogue<T, D> scaled = epilogue;
        scaled.column_scale = scale_;
        return linear(x, layer.weight, scaled);
    }
    Tensor<C, D> merged(const Linear<T, D>& layer) const override {
        const NoGrad no_grad;
        const auto column = reshape(scale_, {scale_.numel(), 1}); // W is [out, in] here
        return layer.weight.frozen()->template dense_copy<C>() * column;
    }
    void parameters(const std::function<void(const std::string&, Tensor<C, D>&)>& visit) override {
        visit("scale", scale_);
    }

  private:
    Tensor<C, D> scale_;
};

int main() {
    Rng rng(1);
    auto layer = Linear<float>::random(4, 3, rng, false);                                                 // no bias
    layer.weight = std::make_shared<DenseWeight<float, Cpu>>(layer.weight.values(), Orientation::out_in); // frozen
    const auto x = normal_parameter<float>({8, 4}, 1, rng).detach();
    const auto target = layer.forward(x, {}) * Tensor<float>::from({3, 0.5, -1}, {3});
    layer.adapter = std::make_shared<OutputScale<float, Cpu>>(3);
    AdamW<float> optimizer({ParameterGroup<float>(trained_parameters<float>(layer))},
                           {.learning_rate = 0.05, .weight_decay = 0});
    float loss = 0;
    for (int step = 0; step < 200; ++step) {
        const auto value = mean(square(layer.forward(x, {}) - target));
        optimizer.step(backward(value));
        loss = value.item();
    }
    const auto scale = trained_parameters<float>(layer)[0].to_vector();
    std::printf("loss %.1e, learned factors %.2f %.2f %.2f\n", loss, scale[0], scale[1], scale[2]);

    const auto adapted = layer.forward(x, {}).to_vector();
    auto model = Sequential(layer);
    merge<float, Cpu>(model);
    const auto merged = model.forward(x, ForwardContext<Cpu>()).to_vector();
    float difference = 0;
    for (std::size_t i = 0; i < merged.size(); ++i) {
        difference = std::fmax(difference, std::fabs(adapted[i] - merged[i]));
    }
    std::printf("merged into the matrix: %s\n", difference < 1e-5f ? "the same outputs" : "other outputs");
    return loss < 1e-3f && difference < 1e-5f ? 0 : 1;
}
