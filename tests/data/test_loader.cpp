#include <doctest/doctest.h>
#include <map>
#include <set>

#include "data_testing.hpp"
#include "lowrank/data/describe.hpp"
#include "lowrank/data/loader.hpp"
#include "lowrank/data/packing.hpp"

using namespace lowrank;

namespace {

/// n rows; row i has i % 7 + 1 tokens, and its last label is masked.
Dataset rows(std::size_t n) {
    Dataset data;
    data.files = {"a.jsonl"};
    for (std::size_t i = 0; i < n; ++i) {
        Example row;
        row.input_ids.assign(i % 7 + 1, static_cast<std::int32_t>(i));
        row.labels = row.input_ids;
        row.labels.back() = ignored_label;
        data.examples.push_back(row);
        data.origins.push_back({0, i + 1, i + 1});
    }
    return data;
}

std::vector<std::size_t> visited(const Step& step) {
    std::vector<std::size_t> all;
    for (const Batch& batch : step.micro_batches) {
        all.insert(all.end(), batch.dataset_rows.begin(), batch.dataset_rows.end());
    }
    return all;
}

} // namespace

TEST_CASE("a batch pads to its longest row and counts by length") {
    Dataset data = rows(7);
    data.examples[1].input_ids = {0, 0}; // token 0 is a token, not padding
    data.examples[1].labels = {0, 0};
    const std::vector<std::size_t> picked = {3, 1};
    const Batch batch = make_batch(data, picked);
    CHECK(batch.rows == 2);
    CHECK(batch.length == 4);
    CHECK(batch.input_ids == std::vector<std::int32_t>{3, 3, 3, 3, 0, 0, 0, 0});
    CHECK(batch.labels == std::vector<std::int32_t>{3, 3, 3, -100, 0, 0, -100, -100});
    CHECK(batch.lengths == std::vector<std::int32_t>{4, 2});
    CHECK(batch.dataset_rows == picked);
    CHECK(batch.tokens == 6);
    CHECK(batch.supervised_tokens == 2 + 1);
    const std::vector<std::size_t> none, outside = {7};
    CHECK_THROWS_AS(make_batch(data, none), ShapeError);
    CHECK_THROWS_AS(make_batch(data, outside), ShapeError);
}

TEST_CASE("shuffling is the same on every platform") {
    // Golden values, checked against an independent Philox and Fisher–Yates in scripts/data_order.py.
    CHECK(permutation(10, 42, 0x80000000u) == std::vector<std::size_t>{1, 4, 9, 6, 3, 2, 7, 0, 8, 5});
    CHECK(permutation(10, 42, 0x80000001u) == std::vector<std::size_t>{6, 7, 4, 8, 5, 9, 0, 3, 1, 2});
    CHECK(epoch_order(10, 42, 1, true) == permutation(10, 42, 0x80000001u));
    CHECK(permutation(0, 1, 0).empty());
    CHECK(permutation(1, 1, 0) == std::vector<std::size_t>{0});
}

TEST_CASE("each permutation of four is as likely as any other") {
    std::map<std::vector<std::size_t>, int> counts;
    for (std::uint32_t stream = 0; stream < 24000; ++stream) {
        ++counts[permutation(4, 7, stream)];
    }
    REQUIRE(counts.size() == 24);
    double chi_square = 0;
    for (const auto& [order, count] : counts) {
        chi_square += (count - 1000.0) * (count - 1000.0) / 1000.0;
    }
    CHECK(chi_square < 49.7); // 23 degrees of freedom, p = 0.001
}

TEST_CASE("an epoch visits every row once, and epochs differ") {
    const Dataset data = rows(23);
    DataLoader loader(data, {3, 2, 5, true, false});
    CHECK(loader.steps_per_epoch() == 4);
    std::vector<std::vector<std::size_t>> epochs(2);
    for (auto& epoch : epochs) {
        for (int i = 0; i < 4; ++i) {
            const Step step = loader.next();
            CHECK(step.micro_batches.size() == 2);
            const auto part = visited(step);
            epoch.insert(epoch.end(), part.begin(), part.end());
            std::int64_t supervised = 0, tokens = 0;
            for (const auto row : part) {
                supervised += supervised_tokens(data.examples[row]);
                tokens += static_cast<std::int64_t>(data.examples[row].input_ids.size());
            }
            CHECK(step.supervised_tokens == supervised);
            CHECK(step.tokens == tokens);
        }
        CHECK(epoch.size() == 23);
        CHECK(std::set<std::size_t>(epoch.begin(), epoch.end()).size() == 23);
    }
    CHECK(epochs[0] != epochs[1]);
    CHECK(loader.position() == DataPosition{2, 0});
    CHECK(loader.epochs_done() == 2.0);
}

TEST_CASE("k micro-batches are the rows of one large batch") {
    const Dataset data = rows(23);
    DataLoader small(data, {2, 4, 9, true, false}), large(data, {8, 1, 9, true, false});
    for (int i = 0; i < 6; ++i) {
        const Step a = small.next(), b = large.next();
        CHECK(visited(a) == visited(b));
        CHECK(a.supervised_tokens == b.supervised_tokens);
    }
}

TEST_CASE("no_shuffle keeps the order, drop_last leaves the partial batch out") {
    const Dataset data = rows(5);
    DataLoader plain(data, {2, 1, 5, false, false});
    CHECK(visited(plain.next()) == std::vector<std::size_t>{0, 1});
    CHECK(plain.epochs_done() == doctest::Approx(0.4));
    CHECK(visited(plain.next()) == std::vector<std::size_t>{2, 3});
    CHECK(visited(plain.next()) == std::vector<std::size_t>{4});
    CHECK(visited(plain.next()) == std::vector<std::size_t>{0, 1});
    DataLoader dropping(data, {2, 1, 5, false, true});
    CHECK(dropping.steps_per_epoch() == 2);
    dropping.next();
    dropping.next();
    CHECK(dropping.position() == DataPosition{1, 0});
    CHECK_THROWS_AS(DataLoader(data, {6, 1, 5, true, true}), OptionError);
    CHECK_THROWS_AS(DataLoader(data, {0, 1, 5, true, false}), OptionError);
    CHECK_THROWS_AS(DataLoader(data, {1, -1, 5, true, false}), OptionError);
    const Dataset empty;
    CHECK_THROWS_AS(DataLoader(empty, {1, 1, 5, true, false}), OptionError);
}

TEST_CASE("a restored position continues with the same batches") {
    const Dataset data = rows(23);
    const LoaderOptions options{2, 2, 11, true, false};
    DataLoader straight(data, options);
    for (int stop = 0; stop < 14; ++stop) {
        DataLoader resumed(data, options);
        resumed.seek(straight.position());
        DataLoader reference = straight;
        for (int i = 0; i < 8; ++i) {
            CHECK(visited(resumed.next()) == visited(reference.next()));
        }
        straight.next();
    }
    for (const DataPosition bad : {DataPosition{-1, 0}, {0, -4}, {0, 3}, {0, 24}, {0, 1000}}) {
        CHECK_THROWS_AS(straight.seek(bad), OptionError);
    }
}

TEST_CASE("the evaluation split is seeded, disjoint and complete") {
    const auto lines = [](const Dataset& part) {
        std::vector<std::size_t> all;
        for (const Origin& origin : part.origins) {
            all.push_back(origin.line);
        }
        return all;
    };
    const DatasetSplit split = split_dataset(rows(1100), 0.1, 3), again = split_dataset(rows(1100), 0.1, 3);
    CHECK(split.eval.size() == 110);
    CHECK(split.train.size() == 990);
    const auto eval = lines(split.eval), train = lines(split.train);
    CHECK(eval == lines(again.eval));
    CHECK(eval != lines(split_dataset(rows(1100), 0.1, 4).eval));
    CHECK(std::is_sorted(eval.begin(), eval.end()));
    std::set<std::size_t> all(eval.begin(), eval.end());
    all.insert(train.begin(), train.end());
    CHECK(all.size() == 1100);
    CHECK(split.eval.where(0) == concat("a.jsonl: line ", eval[0], ", record ", eval[0]));
    CHECK(split_dataset(rows(3), 0.01, 3).eval.size() == 1);
    for (const double bad : {0.0, 1.0, -0.5, 2.0, std::nan("")}) {
        CHECK_THROWS_AS(split_dataset(rows(10), bad, 3), OptionError);
    }
    CHECK_THROWS_AS(split_dataset(rows(1), 0.5, 3), OptionError);
    CHECK_THROWS_AS(split_dataset(rows(10), 0.99, 3), OptionError);
}

TEST_CASE("a sample is shown with its mask") {
    Dataset data;
    data.files = {"a.jsonl"};
    data.origins = {{0, 3, 2}};
    data.examples = {{{'H', 'i', '\x1b', 'y', 'o', 256}, {-100, -100, -100, 'y', 'x', 256}}};
    const ByteTokenizer bytes;
    CHECK(describe_sample(data, 0, [&](std::span<const std::int32_t> ids) { return bytes.decode(ids); }) ==
          "a.jsonl: line 3, record 2: 6 tokens, 3 supervised\n"
          "--- masked, 3 tokens:\nHi\\x1b\n"
          "--- supervised, 3 tokens:\nyo<end>\n"
          "--- 1 labels differ from their input_ids\n");
    CHECK(contains(describe_sample(data, 0), "72 105 27 \n"));
    CHECK(detail::printable("\x7f\tå\xC2\x9B\n\xC2") == "\\x7f\tå\\xc2\\x9b\n\xC2");
    CHECK_THROWS_AS(describe_sample(data, 1), ShapeError);
}

TEST_CASE("length grouping: every row once, little padding, a function of seed and epoch") {
    Dataset data;
    data.files = {"a.jsonl"};
    for (std::size_t i = 0; i < 1003; ++i) {
        data.examples.push_back(
            {std::vector<std::int32_t>(1 + i * 37 % 100, 1), std::vector<std::int32_t>(1 + i * 37 % 100, 1)});
        data.origins.push_back({0, i, i});
    }
    const auto padded_tokens = [&](bool grouped) {
        DataLoader loader(data, {4, 2, 5, true, false, grouped});
        std::set<std::size_t> seen;
        std::int64_t padded = 0;
        for (std::int64_t i = loader.steps_per_epoch(); i > 0; --i) {
            const Step step = loader.next();
            CHECK(step.micro_batches.front().rows == (i == 1 ? 3 : 4)); // the odd one comes last
            for (const Batch& batch : step.micro_batches) {
                padded += batch.rows * batch.length;
                seen.insert(batch.dataset_rows.begin(), batch.dataset_rows.end());
            }
        }
        CHECK(seen.size() == 1003);
        return padded;
    };
    const auto tokens = static_cast<double>(padded_tokens(true));
    CHECK(tokens < 0.7 * static_cast<double>(padded_tokens(false)));
    DataLoader one(data, {4, 2, 5, true, false, true}), two(data, {4, 2, 5, true, false, true});
    two.seek({3, 80});
    one.seek({3, 80});
    CHECK(visited(one.next()) == visited(two.next()));
    two.seek({4, 80});
    CHECK(visited(one.next()) != visited(two.next()));
    CHECK_THROWS_AS(DataLoader(data, {4, 2, 5, false, false, true}), OptionError);
}

TEST_CASE("packing: best fit, complete, in the order of the data") {
    using Bins = std::vector<std::vector<std::size_t>>;
    CHECK(pack_lengths({5, 3, 7, 2, 3}, 10) == Bins{{0, 3, 4}, {1, 2}});
    CHECK(pack_lengths({6, 12, 4, 0}, 10) ==
          Bins{{0, 2}, {1, 3}}); // longer than a row: nothing fits behind it but nothing
    CHECK(pack_lengths({}, 10).empty());
    std::vector<std::size_t> lengths;
    std::size_t total = 0;
    for (std::size_t i = 0; i < 1000; ++i) {
        lengths.push_back(1 + i * i % 97);
        total += lengths.back();
    }
    const Bins bins = pack_lengths(lengths, 128);
    std::set<std::size_t> seen;
    for (const auto& bin : bins) {
        std::size_t length = 0;
        for (const std::size_t row : bin) {
            length += lengths[row];
            seen.insert(row);
        }
        CHECK(length <= 128);
        CHECK(std::is_sorted(bin.begin(), bin.end()));
    }
    CHECK(seen.size() == 1000);
    CHECK(bins.size() <= (total + 127) / 128 + 1); // full but for the last
}

TEST_CASE("packed rows know their documents, their padding and their supervised tokens") {
    Dataset data;
    data.files = {"a.jsonl"};
    data.examples = {{{1, 2, 3}, {-100, 2, 3}}, {{4, 5}, {4, 5}}, {{6, 7, 8, 9}, {6, 7, 8, 9}}};
    data.origins = {{0, 1, 1}, {0, 2, 2}, {0, 3, 3}};
    const Dataset packed = pack_dataset(data, 5);
    REQUIRE(packed.size() == 2);
    CHECK(packed.examples[0].input_ids == std::vector<std::int32_t>{1, 2, 3, 4, 5});
    CHECK(packed.examples[0].labels == std::vector<std::int32_t>{-100, 2, 3, -100, 5});
    CHECK(packed.examples[0].document_starts == std::vector<std::int32_t>{0, 3});
    CHECK(packed.where(0) == "a.jsonl: line 1, record 1 and 1 packed behind it");
    CHECK(packed.where(1) == "a.jsonl: line 3, record 3");
    const std::vector<std::size_t> both = {0, 1};
    const Batch batch = make_batch(packed, both);
    CHECK(batch.document_start == std::vector<std::int32_t>{0, 0, 0, 3, 3, 0, 0, 0, 0, 4});
    CHECK(batch.tokens == 9);
    CHECK(batch.supervised_tokens == 2 + 1 + 3);
    CHECK(make_batch(data, both).document_start.empty());
    CHECK(make_batch(data, both).supervised_tokens == 2 + 1);
    CHECK(contains(describe_sample(packed, 0), "5 tokens, 3 supervised\n--- masked, 1 token:\n1 \n--- supervised, 2 "
                                               "tokens:\n2 3 \n=== the next document\n--- masked, 1 token:\n4 \n"));
    CHECK_THROWS_AS(pack_dataset(data, 0), OptionError);
}

TEST_CASE("what goes wrong in the background reaches the caller") {
    Dataset data = rows(20);
    DataLoader loader(data, {2, 1, 5, false, false});
    data.examples.resize(3); // breaks the promise that the data stays
    CHECK(loader.next().tokens > 0);
    CHECK_THROWS_AS(
        {
            loader.next();
            loader.next();
        },
        ShapeError);
    CHECK(loader.position() == DataPosition{0, 2});
}
