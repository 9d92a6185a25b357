// Text as it is generated: stop strings, whole characters, and the turns of a conversation.

#include <algorithm>

#include "io/temporary_directory.hpp"
#include "lowrank/generate/conversation.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"
#include "lowrank/text/load_tokenizer.hpp"
#include "lowrank/text/text_template.hpp"
#include "models_testing.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

using Ids = std::vector<std::int32_t>;
using Texts = std::vector<std::string>;

const std::filesystem::path demo = std::filesystem::path(LOWRANK_TEST_FIXTURES) / "../../examples/demo/model";

ChatTemplate chat(const char* name) {
    return *TextTemplate::named(name).chat();
}

ConversationOptions greedy(std::int64_t max_new_tokens, const std::string& system = "") {
    ConversationOptions options{.system = system, .max_new_tokens = max_new_tokens};
    options.sampler.greedy = true;
    return options;
}

bool go_on(const std::string&) {
    return true;
}

} // namespace

TEST_CASE("text passes up to the first stop string, and nothing that may become one is shown") {
    const auto run = [](const Texts& stops, const Texts& pieces, bool ends = false) {
        StopStrings text(stops);
        std::string shown;
        for (const std::string& piece : pieces) {
            shown += text.push(piece) + "|";
        }
        const bool has_stopped = text.stopped();
        CHECK(has_stopped == ends);
        return shown + text.finish();
    };
    CHECK(run({}, {"ab", "c"}) == "ab|c|");
    CHECK(run({"END"}, {"aE", "N", "x"}) == "a||ENx|");
    CHECK(run({"END"}, {"aE", "N", "Db", "c"}, true) == "a||||");
    CHECK(run({"END"}, {"aE", "N"}) == "a||EN");
    CHECK(run({"END"}, {"aENDbENDc"}, true) == "a|");
    CHECK(run({"xx", "b"}, {"axb"}, true) == "ax|"); // the earliest, whichever it is
    CHECK(run({"b", "xx"}, {"axb"}, true) == "ax|");
    CHECK(run({"bc", "abcd"}, {"ab", "cd"}, true) == "||");
    CHECK(run({"aab"}, {"aaa", "b"}, true) == "a||");
    CHECK(run({"\n\n"}, {"a\n", "b\n", "\n"}, true) == "a|\nb||");
    CHECK(message_of<OptionError>([] { StopStrings({"a", ""}); }).find("empty") != std::string::npos);
}

TEST_CASE("a stream shows whole characters, before a stop string, of tokens that have text") {
    const Tokenizer tokenizer = Tokenizer::load(fixture("text_tiny_bpe").string());
    const std::string text = "naïve 東京 🚀 END of it";
    const Ids ids = tokenizer.encode(text);
    for (const bool stops : {false, true}) {
        TextStream stream(tokenizer, stops ? Texts{"END"} : Texts{});
        std::string shown;
        for (const std::int32_t id : ids) {
            const std::string piece = stream.push(id);
            CHECK_FALSE(validate_utf8(piece));
            shown += piece + stream.push(tokenizer.vocab_size() + 3); // a row of padding
        }
        CHECK(stream.stopped() == stops);
        shown += stream.finish();
        CHECK(shown == (stops ? text.substr(0, text.find("END")) : text));
    }
    TextStream cut(tokenizer, {"END"});
    const Ids rocket = tokenizer.encode("🚀");
    REQUIRE(rocket.size() > 1);
    CHECK(cut.push(rocket[0]).empty());
    CHECK(cut.finish() == "\xEF\xBF\xBD");
    for (const bool has_lead : {false, true}) { // left out once, at the beginning alone
        TextStream stream(tokenizer, {}, has_lead ? " " : "");
        std::string shown;
        for (const std::int32_t id : tokenizer.encode("  a b")) {
            shown += stream.push(id);
        }
        CHECK(shown + stream.finish() == (has_lead ? " a b" : "  a b"));
    }
}

TEST_CASE("what the assistant writes around its answer") {
    const auto check = [](const ChatTemplate& format, const std::string& lead, const std::string& end) {
        CHECK(answer_form(format).lead == lead);
        CHECK(answer_form(format).end == end);
    };
    check(chat("chatml"), "", "<|im_end|>");
    check(chat("llama3"), "", "<|eot_id|>");
    check(chat("mistral"), " ", "");
    check(chat("vicuna"), " ", "");
    check(chat("alpaca"), "", "");
    check(ChatTemplate("", "U:{content}\n", "A: {content} END{eos}\n"), " ", " END");
}

TEST_CASE("each turn is what the model writes after the whole conversation, and only what is new is computed") {
    const Gpt2<float> model = load_gpt2<float>(demo.string());
    const Tokenizer tokenizer = Tokenizer::load(demo.string());
    for (const char* name : {"alpaca", "chatml", "vicuna"}) {
        CAPTURE(name);
        const ChatTemplate format = chat(name);
        Conversation<float> conversation(model, tokenizer, format, greedy(12, "Short."));
        std::vector<ChatTurn> turns{{ChatRole::system, "Short."}};
        std::int64_t seen = 0;
        for (const char* message : {"Where does Mia live?", "What does she like?", "Why?"}) {
            turns.push_back({ChatRole::user, message});
            const std::vector<Segment> segments = format.prompt_segments(turns);
            const Ids prompt = encode_segments(tokenizer, std::span(segments)).input_ids;
            const AnswerForm form = answer_form(format);
            TextStream stream(tokenizer, form.end.empty() ? Texts{} : Texts{form.end}, form.lead);
            SamplerOptions options;
            options.greedy = true;
            Sampler sampler(options);
            std::string expected, shown;
            const StopReason reason =
                generate(model, std::span(prompt), 12, tokenizer.eos_id(), sampler, [&](std::int32_t id) {
                    expected += stream.push(id);
                    return !stream.stopped();
                });
            expected += stream.finish();
            const ConversationReply reply = conversation.say(message, [&](const std::string& text) {
                shown += text;
                return true;
            });
            CHECK(reply.text == expected);
            CHECK(shown == expected);
            CHECK(reply.reason == reason);
            CHECK(reply.forgotten_turns == 0);
            // What the model wrote itself need not be written again, but for its last token.
            CHECK(reply.computed_tokens <= std::ssize(prompt) - seen);
            seen = std::ssize(prompt);
            turns.push_back({ChatRole::assistant, reply.text});
        }
        CHECK(conversation.turns().size() == turns.size());
    }
}

TEST_CASE("the oldest turns are forgotten when positions run out") {
    const Gpt2<float> model = load_gpt2<float>(demo.string()); // 256 positions
    const Tokenizer tokenizer = Tokenizer::load(demo.string());
    Conversation<float> conversation(model, tokenizer, chat("plain"), greedy(20, "System."));
    std::size_t forgotten = 0;
    for (int i = 0; i < 12; ++i) {
        const ConversationReply reply = conversation.say("Tell me where Mia lives and what she likes, please.", go_on);
        CHECK(reply.reason != StopReason::n_positions);
        forgotten += reply.forgotten_turns;
        CHECK(conversation.turns().size() + forgotten == static_cast<std::size_t>(2 * i + 3));
        CHECK(conversation.turns().front().role == ChatRole::system);
    }
    CHECK(forgotten >= 8);

    const std::vector<ChatTurn> before = conversation.turns();
    std::string long_text;
    for (int i = 0; i < 300; ++i) {
        long_text += "village ";
    }
    const std::string message = message_of<OptionError>([&] { conversation.say(long_text, go_on); });
    CHECK(message.find("expected at most 256") != std::string::npos);
    CHECK(message_of<OptionError>([&] { conversation.say("\xff", go_on); }).find("UTF-8") != std::string::npos);
    CHECK(conversation.turns().size() == before.size());
    CHECK(conversation.say("Where does Mia live?", go_on).reason != StopReason::callback);
}

TEST_CASE("a conversation stops when asked, begins anew, and refuses what its template cannot say") {
    const Gpt2<float> model = load_gpt2<float>(demo.string());
    const Tokenizer tokenizer = Tokenizer::load(demo.string());
    ConversationOptions options{.max_new_tokens = 30};
    options.sampler.temperature = 1.5;
    Conversation<float> conversation(model, tokenizer, chat("plain"), options);
    int pieces = 0;
    const ConversationReply cut =
        conversation.say("Where does Mia live?", [&](const std::string&) { return ++pieces < 3; });
    CHECK(cut.reason == StopReason::callback);
    CHECK(pieces == 3);
    CHECK(conversation.turns().back().text == cut.text);
    conversation.reset();
    CHECK(conversation.turns().empty());
    const std::string first = conversation.say("Where does Mia live?", go_on).text;
    CHECK(first.starts_with(cut.text));
    conversation.reset();
    CHECK(conversation.say("Where does Mia live?", go_on).text == first);

    options.stop = {first.substr(first.size() / 2, 3)};
    Conversation<float> stopped(model, tokenizer, chat("plain"), options);
    CHECK(stopped.say("Where does Mia live?", go_on).text == first.substr(0, first.find(options.stop[0])));

    // A text that ends the template's turns ends the answer, and is no part of it.
    Conversation<float> sentence(model, tokenizer, ChatTemplate("", "{content}\n", "{content}.\n"), greedy(30));
    const ConversationReply one = sentence.say("Where does Mia live?", go_on);
    CHECK(one.reason == StopReason::callback);
    CHECK(one.text.size() > 5);
    CHECK(one.text.find('.') == std::string::npos);

    const auto refusal = [&](const char* name, const ConversationOptions& wrong) {
        return message_of<OptionError>([&] { Conversation<float>(model, tokenizer, chat(name), wrong); });
    };
    CHECK(refusal("mistral", {.system = "Short."}).find("no system turn") != std::string::npos);
    CHECK(refusal("plain", {.stop = {""}}).find("empty") != std::string::npos);
    CHECK(refusal("plain", {.sampler = {.temperature = 0}}).find("temperature") != std::string::npos);
}
