"""The published tables: every row has the columns of its table, and rows of made-up figures."""

import json

import published
import pytest
from published_figures import PUBLISHED, cells
from published_tables import FULL, TABLES, short

FIGURES = {
    "throughput": 12_000.0,
    "mean_inference_throughput": 180_000.0,
    "mean_inference_latency": 0.01104,
    "mean_ms": 500.0,
    "mean_step_time_ms": 256.0,
    "auc": 0.77,
    "final_auc": 0.76,
    "steps": 100,
    "total_s": 70.0,
    "evaluating_s": 10.0,
}


def rows_of(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[0:1] == "|"]


@pytest.mark.parametrize("name", TABLES)
def test_every_row_has_the_columns_of_its_table(name):
    table = TABLES[name](lambda *run, **how: FIGURES, FULL)
    rows = rows_of(published.markdown(name, table))
    assert {len(row) for row in rows} == {len(cells(PUBLISHED[name].columns))}
    assert any(cell.startswith("**") for row in rows for cell in row)


def test_the_lists_have_the_same_tables():
    assert list(PUBLISHED) == list(TABLES)


def test_the_row_of_a_made_up_result():
    commands = []

    def measure(command, **how):
        commands.append((" ".join(command.split()), how["ranks"]))
        return FIGURES

    rows = TABLES["sok"](measure, FULL).rows
    assert rows[:8] == PUBLISHED["sok"].rows
    # 60 s of training in 100 steps of 2,048 samples
    times = ["**1.00**", "**0.17**", "**1.17**", "**600**", "**3.41k**"]
    assert rows[8] == ["**2 cores, 2 ranks**", "**2048**", "**1 epoch**", "**no**", "**yes**", *times]
    assert len(rows) == 12 and len(set(commands)) == 4 and {ranks for _, ranks in commands} == {2}


def test_sizes_agree_with_the_published_ones():
    for name in ("dlrm_sizes", "zoo_sizes"):
        for row in TABLES[name](None, FULL).rows:
            for there, here in zip(row[1::2], row[2::2], strict=True):
                assert float(here.strip("*B")) == pytest.approx(float(there.strip("B")), rel=0.01)


@pytest.mark.parametrize("number, text", [(14_510_000, "14.5M"), (17_700, "17.7k"), (138.3, "138")])
def test_numbers_as_published(number, text):
    assert short(number) == text


def test_a_run_that_has_figures_is_not_repeated(tmp_path, monkeypatch):
    started = []

    def run(command, ranks=1, *, folder):
        started.append((command[0], ranks))
        (folder / "log.json").write_text('{"seed": 1}\n{"step": 5, "auc": 0.7}\n{"auc": 0.8, "name": "x"}\n')

    monkeypatch.setattr(published, "run", run)
    file = tmp_path / "published.json"
    for _ in range(2):
        figures = published.Measurements(file).measure("a.program\n    --flag", data="make data", ranks=2)
        assert figures == {"step": 5, "auc": 0.8}
    assert started == [("bash", 1), ("python", 2)]
    assert list(json.loads(file.read_text())["runs"]) == ["make data && horovodrun -np 2 python -m a.program --flag"]
    published.Measurements(file, again=True).measure("a.program --flag", data="make data", ranks=2)
    assert len(started) == 4
