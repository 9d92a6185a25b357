// train_mlp: a network of one's own, trained in mini-batches to tell two spirals apart, and scored on points held out.

#include <cmath>
#include <cstdio>
#include <vector>

#include <lowrank/data/order.hpp>
#include <lowrank/lowrank.hpp>

using namespace lowrank;

namespace {

using Net = Sequential<Mlp<float>, Mlp<float>>; // 2 inputs, three hidden layers, 2 classes

struct Points {
    Tensor<float> x;             // [n, 2]
    Tensor<std::int32_t> labels; // [n]
};

/// n points on two arms that wind around each other, moved a little at random.
Points spirals(std::int64_t n, Rng& rng) {
    std::vector<float> x;
    std::vector<std::int32_t> labels;
    for (std::int64_t i = 0; i < n; ++i) {
        const double turn = rng.uniform(0.25, 1.5), angle = 6.2831853 * (turn + 0.5 * double(i % 2));
        x.push_back(float(turn * std::cos(angle) + 0.03 * rng.normal()));
        x.push_back(float(turn * std::sin(angle) + 0.03 * rng.normal()));
        labels.push_back(std::int32_t(i % 2));
    }
    return {Tensor<float>::from(x, {n, 2}), Tensor<std::int32_t>::from(labels, {n})};
}

Tensor<float> logits(const Net& net, const Tensor<float>& x) {
    return net.forward(x, ForwardContext<Cpu>());
}

double accuracy(const Net& net, const Points& points) {
    const NoGrad no_grad;
    const auto guesses = argmax(logits(net, points.x), 1);
    return double(mean(equal(cast<float>(guesses), cast<float>(points.labels))).item());
}

} // namespace

int main() {
    Rng rng(0);
    const Points train = spirals(512, rng), held_out = spirals(256, rng);
    Net net(Mlp<float>::random(2, 48, 48, rng), Mlp<float>::random(48, 48, 2, rng));

    constexpr std::int64_t epochs = 60, batch = 32, steps = epochs * 512 / batch;
    AdamW<float> optimizer({ParameterGroup<float>(trained_parameters<float>(net))}, {.learning_rate = 1e-2});
    const Schedule schedule{ScheduleKind::cosine, steps / 20, steps};
    std::int64_t step = 0;
    for (std::int64_t epoch = 0; epoch < epochs; ++epoch) {
        double loss_sum = 0;
        const std::vector<std::size_t> order = epoch_order(512, 0, epoch, true);
        const std::vector<std::int32_t> shuffled(order.begin(), order.end());
        for (const auto& rows :
             split(Tensor<std::int32_t>::from(shuffled, {512}), std::vector<std::int64_t>(512 / batch, batch), 0)) {
            const auto loss = cross_entropy(logits(net, index_select(train.x, 0, rows)),
                                            index_select(train.labels, 0, rows)); // the sum over the rows
            const Gradients gradients = backward(loss / double(batch));
            const GradientNorm norm = gradient_norm(optimizer.parameters(), gradients);
            optimizer.step(gradients, schedule.factor(step++), norm.clip_factor(1));
            loss_sum += double(loss.item());
        }
        if (epoch % 10 == 9) {
            std::printf("epoch %2d  loss %.4f  accuracy %.3f, held out %.3f\n", int(epoch + 1), loss_sum / 512,
                        accuracy(net, train), accuracy(net, held_out));
        }
    }

    // What it has learned: the class of each place.
    std::vector<float> places;
    for (int i = 0; i < 21 * 51; ++i) {
        places.push_back(float(i % 51 - 25) / 25 * 1.6f);
        places.push_back(float(10 - i / 51) / 10 * 1.6f);
    }
    const auto classes = argmax(logits(net, Tensor<float>::from(places, {21 * 51, 2})), 1).to_vector();
    for (std::size_t i = 0; i < classes.size(); ++i) {
        std::printf("%s%s", classes[i] ? "#" : ".", i % 51 == 50 ? "\n" : "");
    }
    return accuracy(net, held_out) > 0.95 ? 0 : 1;
}
