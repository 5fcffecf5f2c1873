"""The report: its charts, the logs that it reads, and the files that it refuses."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from support.any_json import cuts, deep, dump, mutations

from dlrm_tf2 import report

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
        self.open, self.headings, self.cells, self.notes, self.charts = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag, attributes):
        if tag != "meta":
            self.open.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, text):
        tag, attributes = self.open[-1] if self.open else ("", {})
        if attributes.get("type") == "application/json":
            assert attributes["id"] == f"chart-{len(self.charts)}"
            self.charts.append(json.loads(text))
        else:
            is_note = attributes.get("class") == "note"
            {"h3": self.headings, "td": self.cells}.get(tag, self.notes if is_note else []).append(text)


def page_of(tmp_path, *logs):
    output = tmp_path / "report.html"
    assert report.main([*logs, "-o", str(output)]) == 0
    return Page(output.read_text(encoding="utf-8")), output.read_text(encoding="utf-8")


def curves_of(chart):
    """name -> the points (x, y) of each curve."""
    curves = {}
    for point in chart["datasets"]["curves"]:
        curves.setdefault(point["name"], []).append((point["x"], point["y"]))
    return curves


def test_one_chart_for_each_thing_that_the_log_holds(tmp_path):
    page, text = page_of(tmp_path, write_log(tmp_path / "log.json"))
    assert page.headings == TITLES and len(page.charts) == len(TITLES)
    assert [len(curves_of(chart)) for chart in page.charts] == [1] * 7 + [3, 1]
    loss, auc = page.charts[:2]
    assert curves_of(loss) == {"loss": [(step, 0.7 - step / 1000) for step in range(10, 81, 10)]}
    assert curves_of(auc) == {"AUC": [(40, 0.6), (80, 0.7)]}
    for chart in page.charts:  # the x axes of all charts are the same
        assert chart["layer"][0]["encoding"]["x"]["scale"]["domain"] == [10, 80]
    assert curves_of(page.charts[8])["memory"][0] == (10, 2.0)  # of the fullest rank
    assert {"1,234,568", "6.25", "1, 2.5", "d & <e>"} <= set(page.cells)
    assert page.notes == []
    times = page.charts[7]
    names = [field["title"] for field in times["layer"][1]["encoding"]["tooltip"]]
    assert names == ["step", "whole step", "exchange with other ranks", "waiting for data"]
    first = times["datasets"]["hovers"][0]
    assert [first[key] for key in ("x", "v0", "v1", "v2")] == [10, "12.8", "3", "0.5"]


def test_the_page_needs_nothing_else(tmp_path):
    _, text = page_of(tmp_path, write_log(tmp_path / "log.json"))
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text
    outside = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert not re.search(r"https?:|<link|<img|src=|@import|@font-face|url\(", outside)
    assert not re.search(r"<script[^>]+src", text) and text.count("window.vegaEmbed=") == 1


def test_several_logs_are_drawn_over_each_other(tmp_path):
    logs = [write_log(tmp_path / "a.json"), write_log(tmp_path / "b.json", learning_rate=0.25)]
    page, text = page_of(tmp_path, *logs)
    assert [len(curves_of(chart)) for chart in page.charts] == [2] * 7 + [6, 2]
    drawn = {(point["name"], point["colour"], point["dash"]) for point in page.charts[7]["datasets"]["curves"]}
    kinds = ("whole step", "exchange with other ranks", "waiting for data")
    assert drawn == {(f"{log}, {kind}", log, kind) for log in ("a.json", "b.json") for kind in kinds}
    assert "Where the configurations differ" in text and text.index("<th>learning_rate</th><td>0.5</td><td>0.25</td>")
    assert page.charts[7]["layer"][0]["encoding"]["color"]["legend"]["orient"] == "top"


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
    assert len(curves_of(page.charts[0])["loss"]) == 8
    marks = page.charts[0]["datasets"].get("marks", [])
    assert marks == [{"x": 40}] * sum("resumed" in note for note in notes)


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


def test_the_last_training_of_a_log_is_drawn(tmp_path):
    lines = [CONFIG, *records(2), {"mode": "eval", "run": "x"}, {"auc": 0.5}, CONFIG | {"run": "b"}, *records(4),
             {"mode": "eval", "run": "y"}, {"auc": 0.5}]  # fmt: skip
    page, _ = page_of(tmp_path, write(tmp_path / "log.json", *lines))
    assert page.notes == ["holds 2 trainings; the last one is drawn", "not finished: the last line is of step 40"]
    assert len(curves_of(page.charts[0])["loss"]) == 4


def test_a_training_whose_log_holds_another_run_in_its_middle_is_drawn_whole(tmp_path):
    lines = [CONFIG, *records(4), {"mode": "eval", "run": "x"}, {"auc": 0.5}, CONFIG, *list(records())[4:], SUMMARY]
    page, _ = page_of(tmp_path, write(tmp_path / "log.json", *lines))
    assert page.notes == [] and len(curves_of(page.charts[0])["loss"]) == 8


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
