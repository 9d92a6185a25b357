"""The rounds of bench/compare.py: which of them count, and what they say."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
from comparison import page, plot, rounds  # noqa: E402


def compare(peaks, wanted):
    """Ours takes 1, 2, 3, … seconds, the peer three times as long as the run before it."""
    peaks, seconds, order = iter(peaks), [0], []

    def ours():
        order.append("ours")
        seconds[0] += 1
        return {"seconds": seconds[0]}

    def peer():
        order.append("peer")
        return {"seconds": 3 * seconds[0], "unmatched": 1}

    def peak():
        order.append("peak")
        return next(peaks)

    return rounds.compare(ours, peer, peak, wanted), order


class Rounds(unittest.TestCase):
    def test_order(self):
        result, order = compare([100, 100], 1)
        self.assertEqual(order, ["peak", "ours", "peer", "peer", "ours", "peak"])
        self.assertEqual(result.value("ours", "seconds"), 1.5)
        self.assertEqual(result.ratio("seconds"), 2)
        self.assertEqual(result.quantities(), ["seconds"])

    def test_unsteady_rounds_do_not_count(self):
        result, _ = compare([100, 94, 100, 96, 100, 106, 103, 99], 2)
        self.assertEqual((len(result.kept), result.dropped), (2, 2))
        self.assertEqual([r["peaks"] for r in result.kept], [[100, 96], [103, 99]])

    def test_never_steady(self):
        result, _ = compare([100, 50] * 6, 2)
        self.assertEqual((result.kept, result.dropped, result.complete()), ([], 6, False))

    def test_median_of_ratios(self):
        result, _ = compare([100] * 6, 3)  # rounds of 1, 2; 3, 4; 5, 6 seconds against 3, 3; 9, 9; 15, 15
        self.assertEqual(result.ratio("seconds"), 18 / 7)


class Page(unittest.TestCase):
    def test_blocks_are_replaced(self):
        import tempfile

        with tempfile.NamedTemporaryFile("w+", suffix=".md") as file:
            file.write("a\n<!-- figures:x -->\nold\n<!-- end -->\nb\n<!-- figures:y -->\nkept\n<!-- end -->\n")
            file.flush()
            page.update(file.name, {"x": page.table(["name", "s"], [["n", 1]])})
            text = Path(file.name).read_text()
            self.assertIn("a\n<!-- figures:x -->\n| name | s |\n| --- | ---: |\n| n | 1 |\n<!-- end -->\nb\n", text)
            self.assertIn("\nkept\n", text)
            with self.assertRaises(SystemExit):
                page.update(file.name, {"z": "new"})


class Plot(unittest.TestCase):
    def test_ticks(self):
        self.assertEqual(plot.ticks_up_to(1024), [0, 200, 400, 600, 800, 1000, 1200])
        self.assertEqual(plot.ticks_up_to(3), [0, 0.5, 1, 1.5, 2, 2.5, 3])

    def test_axes_begin_at_zero(self):
        svg = plot.line_chart("t < u", "x", "y", [("", [(2, 4), (1, 2)])])
        self.assertIn("t &lt; u", svg)
        self.assertEqual(svg.count("<circle"), 2)
        left, bottom = plot.LEFT, plot.HEIGHT - plot.BOTTOM
        middle = left + (plot.WIDTH - plot.RIGHT - left) / 2, bottom - (bottom - plot.TOP) / 2
        self.assertIn(f"M{middle[0]:.1f} {middle[1]:.1f}L", svg)


if __name__ == "__main__":
    unittest.main()
