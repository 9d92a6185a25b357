#!/usr/bin/env python3
"""Writes the text that the demo's model is made of: corpus.txt to pretrain on, train.jsonl and held_out.jsonl to
fine-tune and to score. Needs Python alone; the same seed gives the same files.

corpus.txt tells of a village: little stories about its people, and questions that are answered in whole sentences. The
instructions ask about the people too, but want the bare answer (`mill`, not `Mia lives near the mill.`), which the corpus
never gives, or a row of a table, a form that it does not know at all. train.jsonl asks about some of the people, and
held_out.jsonl about the others: what is true of them a model can only know from the corpus."""
import argparse
import json
import pathlib
import random

NAMES = """Anna Ben Clara David Emma Felix Greta Hugo Ida Jonas Klara Leo Mia Noah Olga Paul Rosa Simon Tilda Viktor
Wanda Oscar Nina Lucas Martha Peter Julia Henry Alice Tom Lucy Jack Sarah Oliver Laura Adam Helen George Ella Max
Flora Robert Elsa Frank Nora Albert Marie Edgar Judith Walter Vera Daniel Irma Conrad Dora Philip Sofia Karl Lena Martin
Agnes Bruno Cora Emil Frida Gustav Hilda Ivan Jane Kurt Lydia Moritz Nelly Otto Petra Ralph Stella Theo Ursula Vincent
""".split()
TRAITS = "small tall young wise clever brave shy kind busy cheerful sleepy lazy friendly curious quiet proud".split()
# What is to be known of each person, and the values that it may have.
VALUES = {
    "job": """baker teacher doctor painter sailor miller gardener tailor farmer smith shepherd fisher weaver hunter
cook carpenter""".split(),
    "home": "river hill bridge mill lake church well wall market forest school castle harbour meadow tower gate".split(),
    "food": """plums pears cherries nuts carrots mushrooms eggs bread cheese soup honey cake fish beans noodles
berries""".split(),
    "pet": "fox rabbit mouse cat dog crow hedgehog badger goat duck horse frog sheep parrot hamster turtle".split(),
    "colour": "red blue green yellow white black brown grey purple pink golden silver".split(),
    "music": "drum flute violin trumpet harp guitar piano horn cello organ banjo clarinet".split(),
    "number": "two three four five six seven eight nine ten eleven twelve".split(),
}
# For each: sentences of stories, questions, answers in prose (the corpus) and the answer that the instructions want.
RELATIONS = {
    "job": (["{name} is a {job}.", "{name} works as a {job}.", "The village has a {trait} {job}, and that is {name}."],
            ["What does {name} do?", "What is the work of {name}?"],
            ["{name} is a {job}.", "{name} works as a {job}.", "A {job}, as everybody knows."]),
    "home": (["{name} lives near the {home}.", "The house of {name} stands near the {home}.",
              "From the house of {name} you can see the {home}."],
             ["Where does {name} live?", "Where is the house of {name}?"],
             ["{name} lives near the {home}.", "Near the {home}, and not far from here.",
              "The house of {name} is near the {home}."]),
    "food": (["{name} likes {food}.", "For dinner {name} eats {food}.", "On holidays {name} brings {food} for everybody."],
             ["What does {name} like to eat?", "What does {name} eat?"],
             ["{name} likes {food}.", "Mostly {food}, and nothing else.", "{name} eats {food}."]),
    "pet": (["{name} has a {pet}.", "A {pet} lives with {name}.", "In the evening {name} feeds a {pet}."],
            ["Which animal does {name} have?", "Which animal lives with {name}?"],
            ["{name} has a {pet}.", "A {pet} lives with {name}.", "A {pet}, and a big one."]),
    "colour": (["{name} wears a {colour} hat.", "The hat of {name} is {colour}.",
                "You know {name} by the {colour} hat."],
               ["What colour is the hat of {name}?", "Which colour does the hat of {name} have?"],
               ["The hat of {name} is {colour}.", "It is {colour}.", "{name} wears a {colour} hat."]),
    "music": (["{name} plays the {music}.", "After work {name} plays the {music}.",
               "When {name} plays the {music}, everybody listens."],
              ["What does {name} play?", "Which instrument does {name} play?"],
              ["{name} plays the {music}.", "The {music}, and very well.", "In the evening {name} plays the {music}."]),
    "number": (["{name} has {number} cousins.", "There are {number} cousins of {name} in the next village."],
               ["How many cousins does {name} have?"],
               ["{name} has {number} cousins.", "There are {number} of them."]),
}
ROW = ("Write a row about {name}.", "{name} | {job} | {home} | {food}")
OPENINGS = ["In the village there is a {trait} neighbour called {name}.", "This is the story of {name}.",
            "Let us tell of {name}.", "Everybody knows {name}, who is {trait}."]
FILLERS = ["The days go by.", "The birds sing in the trees.", "It is a quiet place.", "Nobody says a word about it.",
           "The others like that.", "There is much to do.", "In winter snow lies on the roofs.", "So it is every year."]


class Random:
    """Choices from random() alone, the one method whose numbers Python promises to keep."""

    def __init__(self, seed):
        self.generator = random.Random(seed)

    def below(self, n):
        return int(self.generator.random() * n)

    def choice(self, values):
        return values[self.below(len(values))]

    def shuffle(self, values):
        for i in range(len(values) - 1, 0, -1):
            j = self.below(i + 1)
            values[i], values[j] = values[j], values[i]
        return values


def village(rng):
    """Everybody, with what is true of them."""
    return [{"name": name, **{key: rng.choice(values) for key, values in VALUES.items()}} for name in NAMES]


def story(rng, person):
    told = rng.shuffle(list(RELATIONS))[: 3 + rng.below(4)]
    sentences = [rng.choice(RELATIONS[relation][0]) for relation in told]
    if rng.below(2):
        sentences.insert(rng.below(len(sentences)) + 1, rng.choice(FILLERS))
    sentences.insert(0, rng.choice(OPENINGS))
    return " ".join(sentence.format(trait=rng.choice(TRAITS), **person) for sentence in sentences)


def asked(rng, person):
    _, questions, answers = RELATIONS[rng.choice(list(RELATIONS))]
    return f"Question: {rng.choice(questions)}\nAnswer: {rng.choice(answers)}".format(**person)


def document(rng, people):
    """A story with questions, or questions about anybody."""
    if rng.below(2):
        person = rng.choice(people)
        return "\n".join([story(rng, person)] + [asked(rng, person) for _ in range(2)])
    return "\n".join(asked(rng, rng.choice(people)) for _ in range(4))


def instructions(person):
    for relation, (_, questions, _) in RELATIONS.items():
        for question in questions:
            yield question, "{" + relation + "}"
    yield ROW


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=pathlib.Path, nargs="?", default=pathlib.Path("."))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus-megabytes", type=float, default=4)
    parser.add_argument("--held-out-people", type=int, default=20)
    parser.add_argument("--held-out", type=int, default=100, help="instructions to score")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)

    rng = Random(arguments.seed)
    people = village(rng)
    with open(arguments.output / "corpus.txt", "w", encoding="utf-8", newline="\n") as corpus:
        while corpus.tell() < arguments.corpus_megabytes * 1e6:
            corpus.write(document(rng, people) + "\n<|endoftext|>")

    rng.shuffle(people)
    groups = {"held_out": people[: arguments.held_out_people], "train": people[arguments.held_out_people :]}
    for name, group in groups.items():
        records = [{"prompt": f"Question: {question.format(**person)}\nAnswer:", "completion": " " + answer.format(**person)}
                   for person in group for question, answer in instructions(person)]  # fmt: skip
        rng.shuffle(records)
        lines = [json.dumps(record) for record in records[: arguments.held_out if name == "held_out" else None]]
        (arguments.output / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
