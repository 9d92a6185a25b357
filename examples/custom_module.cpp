// custom_module: a recurrent network of one's own, its parameters as a table, and its training.

#include <cstdio>

#include <lowrank/lowrank.hpp>

using namespace lowrank;

/// A recurrent cell: h' = tanh(W·x + U·h).
struct RecurrentNet {
    Linear<float> input, state, output;

    explicit RecurrentNet(Rng& rng)
        : input(Linear<float>::random(1, 16, rng)),
          state(Linear<float>::random(16, 16, rng)),
          output(Linear<float>::random(16, 1, rng)) {}

    template <class Visit>
    void fields(Visit&& visit) {
        visit("input", input);
        visit("state", state);
        visit("output", output);
    }

    /// A number in (0, 1) for rows x [batch, length].
    Tensor<float> forward(const Tensor<float>& x) const {
        auto h = Tensor<float>::zeros({x.size(0), 16});
        for (std::int64_t t = 0; t < x.size(1); ++t) {
            h = tanh(input.forward(slice(x, 1, t, t + 1), {}) + state.forward(h, {}));
        }
        return sigmoid(output.forward(h, {}));
    }
};

int main() {
    Rng rng(4);
    RecurrentNet net(rng);
    std::printf("%s", parameter_table<float>(net).c_str());
    // Which of two numbers came first? 0.9 then 0.1 is 1, the reverse is 0.
    const auto x = Tensor<float>::from({0.9f, 0.1f, 0.1f, 0.9f, 0.8f, 0.2f, 0.3f, 0.7f}, {4, 2});
    const auto y = Tensor<float>::from({1, 0, 1, 0}, {4, 1});
    AdamW<float> optimizer({ParameterGroup<float>(trained_parameters<float>(net))}, {.learning_rate = 0.02});
    float loss = 1;
    for (int step = 0; step < 200; ++step) {
        const auto value = mean(square(net.forward(x) - y));
        optimizer.step(backward(value));
        loss = value.item();
    }
    const auto unseen = Tensor<float>::from({0.7f, 0.2f, 0.2f, 0.8f}, {2, 2});
    const auto answers = net.forward(unseen).to_vector();
    std::printf("loss %.1e; 0.7 before 0.2: %.2f, 0.2 before 0.8: %.2f\n", loss, answers[0], answers[1]);
    return loss < 0.01f && answers[0] > 0.9f && answers[1] < 0.1f ? 0 : 1;
}
