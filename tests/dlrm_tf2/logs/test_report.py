"""The report: its charts, the logs that it reads, and the files that it refuses."""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest
from support.any_json import cuts, deep, dump, mutations

from dlrm_tf2 import report
from dlrm_tf2.svg_chart import Axes, Curve, line_chart, number_text, thinned, ticks

CONFIG = {"run": "a", "world_size": 2, "mode": "train", "batch_size": 64, "learning_rate": 0.5,
          "dataset_path": "d & <e>"}  # fmt: skip
SUMMARY = {"throughput": 1234567.8, "mean_step_time_ms": 6.25, "auc": 0.75, "exchange_ms_of_ranks": [1.0, 2.5]}
TITLES = ["Training loss", "AUC", "Test loss", "Normalised entropy", "Calibration", "Learning rate", "Throughput",
          "Time per step", "Memory of the fullest rank"]  # fmt: skip


def records(num_steps=8):
    for step in range(10, 10 * num_steps + 1, 10):
        yield {
            "step": step,
            "loss": 0.7 - step / 1000,
            "learning_rate": 0.5,
            "samples_per_s": 5000.0,
            "step_ms": 12.8,
            "data_wait_ms": 0.5,
            "exchange_ms": 3.0,
            "exchange_ms_of_ranks": [3.0, 4.0],
            "memory_gib": [1.0, 2.0],
        }
        if step % 40 == 0:
            yield {"step": step, "auc": 0.5 + step / 400, "test_loss": 0.5, "normalized_entropy": 0.9,
                   "calibration": 1.01, "num_samples": 300}  # fmt: skip


def write(path, *lines, end=""):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + end, encoding="utf-8")
    return str(path)


def write_log(path, **config):
    return write(path, CONFIG | config, *records(), SUMMARY)


class Page(HTMLParser):
    """Checks that every element is closed, and collects the parts that the tests check."""

    def __init__(self, text):
        super().__init__()
        self.open, self.headings, self.cells, self.notes = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], "every element is closed"
        self.charts = [ElementTree.fromstring(svg) for svg in re.findall(r'<svg viewBox="0 0 420.*?</svg>', text, re.S)]

    def handle_starttag(self, tag, attributes):
        if tag != "meta" and not self.get_starttag_text().endswith("/>"):
            self.open.append((tag, dict(attributes).get("class")))

    def handle_endtag(self, tag):
        if self.open and self.open[-1][0] == tag:
            self.open.pop()
        else:
            assert tag in ("line", "polyline", "circle"), f"</{tag}> closes nothing"

    def handle_data(self, text):
        tag, kind = self.open[-1] if self.open else ("", None)
        {"h3": self.headings, "td": self.cells}.get(tag, self.notes if kind == "note" else []).append(text)


def page_of(tmp_path, *logs):
    output = tmp_path / "report.html"
    assert report.main([*logs, "-o", str(output)]) == 0
    return Page(output.read_text(encoding="utf-8")), output.read_text(encoding="utf-8")


def curves_of(chart):
    return [line.get("points").split() for line in chart.iter("polyline")]


def test_one_chart_for_each_thing_that_the_log_holds(tmp_path):
    page, text = page_of(tmp_path, write_log(tmp_path / "log.json"))
    assert page.headings == TITLES and len(page.charts) == len(TITLES)
    assert [len(curves_of(chart)) for chart in page.charts] == [1] * 7 + [3, 1]
    assert [len(curves_of(chart)[0]) for chart in page.charts[:2]] == [8, 2]
    assert {"1,234,568", "6.25", "1, 2.5", "d & <e>"} <= set(page.cells)
    assert page.notes == []
    hovers = [title.text for title in page.charts[7].iter("title")]
    assert hovers[0] == "step 10\nwhole step: 12.8\nexchange with other ranks: 3\nwaiting for data: 0.5"


def test_the_page_needs_nothing_else(tmp_path):
    _, text = page_of(tmp_path, write_log(tmp_path / "log.json"))
    assert not re.search(r"https?:|<script|<link|<img|src=|@import|@font-face|url\(", text)
    assert text.count("prefers-color-scheme: dark") == 2


def test_several_logs_are_drawn_over_each_other(tmp_path):
    logs = [write_log(tmp_path / "a.json"), write_log(tmp_path / "b.json", learning_rate=0.25)]
    page, text = page_of(tmp_path, *logs)
    assert [len(curves_of(chart)) for chart in page.charts] == [2] * 7 + [6, 2]
    colours = [line.get("class").split()[1] for line in page.charts[7].iter("polyline")]
    assert colours == ["c0", "c1"] * 3
    assert "Where the configurations differ" in text and text.index("<th>learning_rate</th><td>0.5</td><td>0.25</td>")
    assert text.count('<li class="c0">') == text.count('<li class="c1">') == 1
    assert "b.json, exchange with other ranks: 3" in next(page.charts[7].iter("title")).text


def test_logs_of_one_name_are_named_with_their_folders(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
    logs = [write_log(tmp_path / folder / "log.json") for folder in ("x", "y")]
    assert all(f"<th>{log}</th>" in page_of(tmp_path, *logs)[1] for log in logs)


@pytest.mark.parametrize("lines, end, notes", [
    ([CONFIG, *records()], "", ["not finished: the last line is of step 80"]),
    ([CONFIG, *records()], '{"step": 90, "lo', ["the last line is cut off and left out",
                                                "not finished: the last line is of step 80"]),
    ([CONFIG, *records(4), {"resumed_step": 40, "run": "a"}, *list(records())[5:], SUMMARY], "",
     ["interrupted, and resumed after step 40"]),
    ([CONFIG, *records(), SUMMARY], "\n\n", []),
])  # fmt: skip
def test_logs_of_runs_that_were_stopped(tmp_path, lines, end, notes):
    page, _ = page_of(tmp_path, write(tmp_path / "log.json", *lines, end=end))
    assert page.notes == notes
    assert len(curves_of(page.charts[0])[0]) == 8
    marks = [line for line in page.charts[0].iter("line") if line.get("class") == "mark"]
    assert len(marks) == sum("resumed" in note for note in notes)


def test_old_logs_and_missing_numbers(tmp_path):
    """A log without the newer keys, and evaluations whose AUC is not defined."""
    lines = [{"step": step, "loss": 0.5, "exchange_ms": None} for step in (1, 2)]
    lines += [{"step": 2, "auc": None, "test_loss": 0.5}, {"step": 3, "loss": float("nan")}]
    page, _ = page_of(tmp_path, write(tmp_path / "log.json", CONFIG, *lines))
    assert page.headings == ["Training loss", "Test loss"]


@pytest.mark.parametrize("content, message", [
    (None, "no such file"),
    (b"", "is empty"),
    (b"\x80\x02binary", "is not text"),
    (b"day,clicks\n1,2\n", "line 1: is not a JSON object"),
    (b'{"a": 1}\n[3]\n{"b": 2}\n', "line 2: is not a JSON object"),
    (b'{"a": 1}\n', "does not begin with the configuration"),
    (json.dumps(CONFIG).encode(), "has not one step yet"),
    (json.dumps(CONFIG | {"mode": "eval"}).encode() + b'\n{"auc": 0.5}\n', "is of --mode eval"),
])  # fmt: skip
def test_what_is_not_a_log_is_refused_in_one_line(tmp_path, capsys, content, message):
    log = tmp_path / "log.json"
    if content is not None:
        log.write_bytes(content)
    assert report.main([str(log), "-o", str(tmp_path / "report.html")]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"dlrm-report: {log}") and message.lower() in error.lower() and error.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


def test_a_log_is_not_overwritten(tmp_path, capsys):
    log = write_log(tmp_path / "log.json")
    assert report.main([log, "-o", log]) == 1
    assert "is one of the logs" in capsys.readouterr().err and "throughput" in (tmp_path / "log.json").read_text()


def test_only_a_page_is_replaced(tmp_path, capsys):
    log, output = write_log(tmp_path / "log.json"), tmp_path / "out"
    for content in ("day,clicks\n1,2\n", "<!doctype html>\n<p>my own page</p>\n"):
        output.write_text(content)
        assert report.main([log, "-o", str(output)]) == 1
        assert (
            "out: exists and is not a page of this program" in capsys.readouterr().err and output.read_text() == content
        )
    output.write_bytes(b"")
    for _ in range(2):  # an empty file, then a page
        assert report.main([log, "-o", str(output)]) == 0 and "</html>" in output.read_text()


def test_it_runs_without_tensorflow(tmp_path):
    log, output = write_log(tmp_path / "log.json"), str(tmp_path / "report.html")
    code = (
        "import sys; from dlrm_tf2 import report; "
        f"print(report.main([{log!r}, '-o', {output!r}]), {{'tensorflow', 'numpy'}} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.splitlines()[-1] == "0 set()", run.stderr


def test_a_chart_by_hand():
    axes = Axes("step", (0, 10), unit="unit", from_zero=True)
    chart = line_chart("Title", axes, curves=[Curve("y", [(0, 0.0), (10, 20.0)])])
    svg = ElementTree.fromstring(chart)
    # The plot is 70 to 400 wide and 8 to 208 high; the axis goes up to 21, to leave room above.
    assert curves_of(svg) == [["70.0,208.0", f"400.0,{8 + 200 / 21:.1f}"]]
    assert [text.text for text in svg.iter("text") if text.get("class") == "y"] == ["0", "5", "10", "15", "20"]
    assert [text.text for text in svg.iter("text") if text.get("class") == "x"] == ["0", "2", "4", "6", "8", "10"]


@pytest.mark.parametrize("cut_peaks, x_text", [(True, "step (peaks up to 900 are cut off)"), (False, "step")])
def test_a_peak_can_be_cut_off(cut_peaks, x_text):
    points = [(0, 900.0), *((x, 2.0) for x in range(1, 50))]
    axes = Axes("step", (0, 49), unit="u", from_zero=True, cut_peaks=cut_peaks)
    chart = line_chart("t", axes, curves=[Curve("y", points)])
    svg = ElementTree.fromstring(chart)
    assert [text.text for text in svg.iter("text") if text.get("class") == "unit"] == [x_text, "u"]
    heights = [float(place.split(",")[1]) for place in curves_of(svg)[0]]
    assert 8 <= heights[0] < 20 and (heights[1] < 100) == cut_peaks
    assert next(svg.iter("title")).text == "step 0\ny: 900"


@pytest.mark.parametrize("points", [[(5, 3.0)], [(5, 0.0)], [(1, 2.0), (2, 2.0)]])
def test_a_single_point_and_a_flat_line_can_be_drawn(points):
    xs = [x for x, _ in points]
    axes = Axes("step", (min(xs), max(xs)), unit="u")
    svg = ElementTree.fromstring(line_chart("t", axes, curves=[Curve("y", points)]))
    assert "nan" not in ElementTree.tostring(svg, "unicode")
    assert len(curves_of(svg)[0]) == len(points)


@pytest.mark.parametrize("low, high, most, texts", [
    (0.43, 0.71, 6, ["0.45", "0.50", "0.55", "0.60", "0.65", "0.70"]),
    (0, 3e5, 6, ["0", "50k", "100k", "150k", "200k", "250k", "300k"]),
    (0, 2.4e6, 6, ["0", "0.5M", "1.0M", "1.5M", "2.0M"]),
    (-1, 1, 4, ["-1.0", "-0.5", "0", "0.5", "1.0"]),
    (0, 2e-4, 4, ["0", "5e-05", "0.0001", "0.00015", "0.0002"]),
    (900, 8200, 4, ["2,000", "4,000", "6,000", "8,000"]),
])  # fmt: skip
def test_ticks(low, high, most, texts):
    found, numbers = ticks(low, high, most=most)
    assert found == texts and len(numbers) == len(texts)


def test_steps_have_whole_ticks():
    assert ticks(1, 3, most=5, whole=True) == (["1", "2", "3"], [1, 2, 3])


def test_thinning_keeps_the_ends_and_the_peaks():
    points = [(x, 1.0) for x in range(10000)]
    points[4321], points[7654] = (4321, 9.0), (7654, -9.0)
    kept = thinned(points, 100)
    assert len(kept) <= 101 and kept[0] == points[0] and kept[-1] == points[-1]
    assert {points[4321], points[7654]} <= set(kept) and kept == sorted(kept)
    assert thinned(points[:100], 100) == points[:100]


@pytest.mark.parametrize("value, text", [(1234567.8, "1,234,568"), (0.4512345, "0.45123"), (1234.56, "1,234.6")])
def test_numbers_for_people(value, text):
    assert number_text(value) == text


def test_the_last_training_of_a_log_is_drawn(tmp_path):
    lines = [CONFIG, *records(2), {"mode": "eval", "run": "x"}, {"auc": 0.5}, CONFIG | {"run": "b"}, *records(4),
             {"mode": "eval", "run": "y"}, {"auc": 0.5}]  # fmt: skip
    page, _ = page_of(tmp_path, write(tmp_path / "log.json", *lines))
    assert page.notes == ["holds 2 trainings; the last one is drawn", "not finished: the last line is of step 40"]
    assert len(curves_of(page.charts[0])[0]) == 4


def test_a_training_whose_log_holds_another_run_in_its_middle_is_drawn_whole(tmp_path):
    lines = [CONFIG, *records(4), {"mode": "eval", "run": "x"}, {"auc": 0.5}, CONFIG, *list(records())[4:], SUMMARY]
    page, _ = page_of(tmp_path, write(tmp_path / "log.json", *lines))
    assert page.notes == [] and len(curves_of(page.charts[0])[0]) == 8


def test_any_values_are_drawn_or_refused_in_one_line(tmp_path, capsys):
    lines = [CONFIG, *records(3), {"resumed_step": 20, "run": "a"}, SUMMARY]
    drawn = 0
    for changed in mutations(lines, 300):
        log = tmp_path / "log.json"
        log.write_bytes(b"".join(dump(line) + b"\n" for line in changed))
        status = report.main([str(log), "-o", str(tmp_path / "report.html")])
        error = capsys.readouterr().err
        if status == 0:
            drawn += 1
            Page((tmp_path / "report.html").read_text(encoding="utf-8"))
        else:
            assert error.startswith(f"dlrm-report: {log}") and error.count("\n") == 1, error
    assert drawn > 150


def test_a_log_that_is_cut_or_has_a_bit_flipped(tmp_path, capsys):
    content = b"".join(dump(line) + b"\n" for line in [CONFIG, *records(), SUMMARY])
    for changed in [*cuts(content, 60), deep().encode(), dump(CONFIG) + b"\n" + deep().encode()]:
        (tmp_path / "log.json").write_bytes(changed)
        status = report.main([str(tmp_path / "log.json"), "-o", str(tmp_path / "report.html")])
        assert status == 0 or capsys.readouterr().err.count("\n") == 1


def test_a_report_that_cannot_be_written_names_the_file(tmp_path, capsys):
    log = write_log(tmp_path / "log.json")
    assert report.main([log, "-o", "/dev/full"]) == 1
    assert capsys.readouterr().err == "dlrm-report: /dev/full: No space left on device\n"
    assert report.main([log, "-o", str(tmp_path / "log.json" / "below")]) == 1
    assert capsys.readouterr().err.startswith(f"dlrm-report: {tmp_path}/log.json/below: ")
    assert os.listdir(tmp_path) == ["log.json"]
