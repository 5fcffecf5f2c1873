"""The stability test: its statistics against values by hand, and runs that are not repeated."""

import json

import pytest
import stability
from stability import Run

# Each pair is complete in order: of the 20 ways to divide 6 numbers into two groups, 1 and its mirror image are as
# extreme as A and B, and 2 and theirs as extreme as A and C, or C and B. All differences have the same sign, as in 1
# of the 8 ways to give 3 numbers signs, and its mirror image.
GROUPS = {"A": [1.0, 2.0, 3.0], "B": [4.0, 5.5, 7.0], "C": [2.5, 3.6, 4.7]}
RUNS = [Run("float32", 1, seed) for seed in (1, 2, 3)]
SETTINGS = {"samples": 10, "flags": "--cpu"}


def test_pairs_by_hand():
    rows = stability.compare(GROUPS)
    assert [(row["first"], row["second"]) for row in rows] == [("A", "B"), ("A", "C"), ("B", "C")]
    assert [row["mann_whitney"]["p"] for row in rows] == pytest.approx([0.1, 0.2, 0.2])
    assert [row["mann_whitney"]["holm"] for row in rows] == pytest.approx([0.3, 0.4, 0.4])
    assert [row["paired"]["p"] for row in rows] == pytest.approx([0.25] * 3)
    assert [row["paired"]["holm"] for row in rows] == pytest.approx([0.75] * 3)
    assert [row["mean_difference"] for row in rows] == pytest.approx([3.5, 1.6, -1.9])
    assert [row["largest_difference"] for row in rows] == pytest.approx([4.0, 1.7, -2.3])


@pytest.mark.parametrize("p_values, corrected", [
    ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # 4 x 0.005, 3 x 0.01, 2 x 0.03, then not below 0.06
    ([0.6, 0.5], [1.0, 1.0]),
    ([0.02], [0.02]),
])  # fmt: skip
def test_holm_by_hand(p_values, corrected):
    assert stability.holm(p_values) == pytest.approx(corrected)


def test_a_stopped_test_repeats_no_run(tmp_path):
    trained = []

    def train(run):
        trained.append(run)
        return run.seed / 10

    file = tmp_path / "runs.jsonl"
    assert stability.finish(RUNS, file, settings=SETTINGS, train=train, most=2) == {RUNS[0]: 0.1, RUNS[1]: 0.2}
    aucs = stability.finish(RUNS, file, settings=SETTINGS, train=train)
    assert aucs == {run: run.seed / 10 for run in RUNS}
    assert trained == RUNS and len(file.read_text().splitlines()) == 3


def test_runs_with_other_settings_are_refused(tmp_path):
    file = tmp_path / "runs.jsonl"
    stability.finish(RUNS[:1], file, settings=SETTINGS, train=lambda run: 0.5)
    before = file.read_text()
    with pytest.raises(SystemExit, match="other settings.*--runs"):
        stability.finish(RUNS, file, settings={**SETTINGS, "samples": 11}, train=lambda run: 0.5)
    assert file.read_text() == before


def test_groups_have_the_seeds_in_the_same_order():
    runs = [Run(precision, 2, seed) for seed in (2, 1) for precision in ("amp", "float32")]
    aucs = {run: run.seed + (0.5 if run.precision == "amp" else 0.0) for run in runs}
    groups = stability.by_group(runs, aucs)
    assert list(groups.items()) == [("float32, 2 ranks", [1.0, 2.0]), ("amp, 2 ranks", [1.5, 2.5])]
    assert stability.summary([1.0, 2.0, 6.0]) == pytest.approx(
        {"mean": 3.0, "standard_deviation": 7**0.5, "min": 1.0, "max": 6.0}
    )
    json.dumps(stability.compare({name: [*aucs, 9.25] for name, aucs in groups.items()}))  # plain numbers
