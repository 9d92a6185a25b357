"""Fair rounds on a machine that others share: peak, ours, peer, peer, ours, peak."""

from statistics import mean, median

TOLERANCE = 0.05


class Comparison:
    """The rounds that were kept, and what they say. A run is a dict of quantities."""

    def __init__(self, wanted):
        self.wanted, self.kept, self.dropped = wanted, [], 0

    def ratio(self, quantity):
        """The median over rounds of peer / ours."""
        return median(of_round(r["peer"], quantity) / of_round(r["ours"], quantity) for r in self.kept)

    def value(self, who, quantity):
        """The median over rounds."""
        return median(of_round(r[who], quantity) for r in self.kept)

    def quantities(self):
        return [q for q in self.kept[0]["ours"][0] if q in self.kept[0]["peer"][0]] if self.kept else []

    def complete(self):
        return len(self.kept) >= self.wanted

    def as_json(self):
        return {
            "rounds": len(self.kept),
            "dropped_rounds": self.dropped,
            "ours": {q: self.value("ours", q) for q in self.quantities()},
            "peer": {q: self.value("peer", q) for q in self.quantities()},
            "ratio": {q: self.ratio(q) for q in self.quantities()},
            "every_round": self.kept,
        }


def of_round(runs, quantity):
    return mean(run[quantity] for run in runs)


def compare(ours, peer, peak, wanted, tolerance=TOLERANCE, say=lambda text: None, attempts=3):
    """Runs rounds until `wanted` of them have two peaks within `tolerance` of one another, or `attempts` times as many
    were tried. `ours` and `peer` return the quantities of one run, `peak` what the machine can do."""
    result = Comparison(wanted)
    after = None
    for number in range(1, attempts * wanted + 1):
        before = peak()
        first, *theirs, last = ours(), peer(), peer(), ours()
        after = peak()
        steady = abs(after - before) <= tolerance * max(before, after)
        if steady:
            result.kept.append({"peaks": [before, after], "ours": [first, last], "peer": theirs})
        else:
            result.dropped += 1
        say(f"round {number}: peaks {before:.1f} and {after:.1f}, {'kept' if steady else 'dropped'}")
        if result.complete():
            break
    return result
