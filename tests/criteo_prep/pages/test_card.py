"""The numbers of the card against one line of polars or numpy each, the page, and what the verb refuses."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest
from support.key_dataset import write_keys
from support.small_dataset import write_dataset

from criteo_prep import cli
from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import Feature, FeatureSpec, tf_raw_spec
from criteo_prep.pages.card import make_card
from criteo_prep.pages.card_page import card_page
from criteo_prep.pages.categorical_facts import categorical_facts
from criteo_prep.pages.dataset import Dataset
from criteo_prep.preprocess.new_rows import encode
from criteo_prep.preprocess.request import Resources
from criteo_prep.preprocess.rules import make_rules
from criteo_prep.preprocess.run import preprocess
from criteo_prep.transcribe.tf_raw import Writer

QUIET = Resources(workers=1, quiet=True)
DAY_ROWS = (500, 300, 401)
LABEL, NUM_0, CAT_0, CAT_1 = "label", "num_0", "cat_0", "cat_1"
COLUMNS = [LABEL, *(f"num_{i}" for i in range(13)), *(f"cat_{i}" for i in range(26))]


def write_days(folder):
    """Three day files of Criteo's form with missing numbers and missing hashes, and all of their rows."""
    rng = np.random.default_rng(1)
    folder.mkdir()
    for day, rows in enumerate(DAY_ROWS):
        lines = []
        for _ in range(rows):
            numbers = [str(number) if number < 90 else "" for number in rng.integers(0, 100, 13)]
            hashes = [f"{value:08x}" if value % 7 else "" for value in rng.zipf(1.4, 26).clip(max=2**31)]
            lines.append("\t".join([str(int(rng.random() < 0.2 + 0.2 * day)), *numbers, *hashes]))
        (folder / f"day_{day}").write_text("\n".join(lines) + "\n")
    files = [folder / f"day_{day}" for day in range(3)]
    form = {"separator": "\t", "has_header": False, "infer_schema": False, "new_columns": COLUMNS}
    return pl.concat(pl.read_csv(file, **form) for file in files)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, rows): datasets t0, t3 and keys in the folder, made of the same rows."""
    folder = tmp_path_factory.mktemp("made")
    rows = write_days(folder / "days")
    kinds = {"t0": make_rules(0), "t3": make_rules(3), "keys": make_rules(None, ids="raw")}
    kinds["train_days"] = make_rules("3,cat_1:2", vocabulary_days="train", shuffle="global")
    for name, rules in kinds.items():
        preprocess([folder / "days"], folder / name, rules=rules, resources=QUIET)
    return folder, rows


def counts_of(rows, column):
    """One row for each value: "len", how often it occurs."""
    return rows.drop_nulls(column).group_by(column).len()


def test_rows_and_label_rates(made):
    folder, rows = made
    labels = make_card(folder / "t3", quiet=True).labels
    clicks = rows[LABEL].cast(pl.Int64)
    sizes = {"train": (0, 800), "test": (800, 201), "validation": (1001, 200)}
    assert [(each.split, each.rows, each.clicks) for each in labels.splits] == [
        (split, size, clicks.slice(first, size).sum()) for split, (first, size) in sizes.items()
    ]
    files = [("day_0", "train", 0, 500), ("day_1", "train", 500, 300), ("day_2", "test", 800, 201),
             ("day_2", "validation", 1001, 200)]  # fmt: skip
    assert [(each.name, each.split, each.rows, each.rate) for each in labels.files] == [
        (name, split, size, clicks.slice(first, size).mean()) for name, split, first, size in files
    ]
    assert labels.note == ""


def test_train_rows_in_random_order_have_no_rate_by_file(made):
    folder, _ = made
    labels = make_card(folder / "train_days", quiet=True).labels
    assert [(each.name, each.clicks is None) for each in labels.files] == [
        ("day_0", True), ("day_1", True), ("day_2", False), ("day_2", False)
    ]  # fmt: skip
    assert "random order" in labels.note


def test_a_log_with_a_schema_has_a_threshold_for_each_feature(tmp_path):
    """Sites a, b and c occur 5, 4 and once; hours 0 to 4 twice each."""
    sites = "aaaaabbbbc"
    (tmp_path / "log.csv").write_text(
        "clicked,site,hour\n" + "".join(f"{row % 2},{site},{row // 2}\n" for row, site in enumerate(sites))
    )
    (tmp_path / "schema.yaml").write_text(
        "label: {column: clicked}\ncategorical: {site: {threshold: 3}, hour: {}}\nsplit: {test_fraction: 0.2}\n"
    )
    command = ["preprocess", "--schema", "schema.yaml", "log.csv", "--output", "set", "--quiet"]
    assert cli.main([part if "." not in part and part != "set" else str(tmp_path / part) for part in command]) == 0
    site, hour = (facts.coverage for facts in make_card(tmp_path / "set", quiet=True).categorical)
    assert (site.known_from, site.share(3), site.share(5)) == (3, 0.9, 0.5)
    assert (hour.known_from, hour.share(1), hour.share(3)) == (1, 1.0, 0.0)


@pytest.mark.parametrize("name, known_from", [("t0", 1), ("t3", 3)])
def test_what_each_threshold_keeps(made, name, known_from):
    """The vocabularies say the same as the rows: T 3 knows only the thresholds from 3 on."""
    folder, rows = made
    for column, feature in ((CAT_0, 0), (CAT_1, 1)):
        coverage = make_card(folder / name, quiet=True).categorical[feature].coverage
        counts = counts_of(rows, column)
        assert coverage.known_from == known_from and coverage.thresholds[0] == known_from
        for threshold in (known_from, 5, 20, 100):
            kept = counts.filter(pl.col("len") >= threshold)
            assert coverage.share(threshold) == kept["len"].sum() / len(rows)
            assert coverage.table_rows(threshold) == len(kept) + 1
        assert max(coverage.thresholds) <= counts["len"].max() < 10 * max(coverage.thresholds)


def test_a_vocabulary_of_the_train_rows(made):
    folder, rows = made
    coverage = make_card(folder / "train_days", quiet=True).categorical[1].coverage
    kept = counts_of(rows[:800], CAT_1).filter(pl.col("len") >= 4)["len"].sum()
    assert (coverage.known_from, coverage.source) == (2, "vocabulary of train rows")
    assert coverage.share(4) == kept / 800


def test_skew_missing_and_drift(made):
    folder, rows = made
    train, test = rows[:800], rows[800:1001]
    for name in ("t0", "keys"):
        facts = make_card(folder / name, quiet=True).categorical[0]
        counts = counts_of(train, CAT_0).sort("len", descending=True)["len"]
        assert facts.num_ids == len(counts)
        assert facts.top == {number: counts.head(number).sum() / 800 for number in (1, 10, 1000)}
        assert facts.rest == train[CAT_0].null_count() / 800 and facts.rest_is_missing
        both = train.group_by(CAT_0).len("train").join(
            test.group_by(CAT_0).len("test"), on=CAT_0, how="full", coalesce=True, nulls_equal=True
        ).fill_null(0)  # fmt: skip
        variation = both.select((pl.col("train") / 800 - pl.col("test") / 201).abs().sum() / 2).item()
        unseen = test.filter(~pl.col(CAT_0).is_in(train[CAT_0].drop_nulls().implode())).height / 201
        assert facts.drift.variation == pytest.approx(variation) and facts.drift.unseen == pytest.approx(unseen)
        assert facts.empty is None
    keys = make_card(folder / "keys", quiet=True).categorical[0]
    assert keys.table_rows == keys.num_ids  # a row for each key
    kept = counts_of(train, CAT_0).filter(pl.col("len") >= 2)["len"].sum()
    assert keys.coverage.share(2) == kept / 800 and keys.coverage.source == "counts of the keys in the train split"
    assert not make_card(folder / "t3", quiet=True).categorical[0].rest_is_missing


def test_the_drift_of_two_samples_of_one_law_is_chance(tmp_path):
    rng = np.random.default_rng(1)
    spec = tf_raw_spec([Feature("cat_0", "", 1000), Feature("cat_1", "", 1000)], num_numerical=0)
    for split, size, first in (("train", 40_000, 0), ("test", 10_000, 400)):
        ids = [rng.zipf(1.2, size) % 500, rng.integers(0, 500, size) + first]
        with Writer(tmp_path, spec, split) as writer:
            columns = {f"cat_{i}": Ids(column) for i, column in enumerate(ids)}
            writer.write(Batch(rng.random(size) < 0.5, np.empty((size, 0), np.float16), columns))
    spec.save(tmp_path / "feature_spec.yaml")
    same, moved = (facts.drift for facts in make_card(tmp_path, quiet=True).categorical)
    assert same.variation == pytest.approx(same.by_chance, rel=0.1)
    assert moved.variation == pytest.approx(0.8, abs=0.05) and moved.unseen == pytest.approx(0.8, abs=0.02)


def test_numericals(made):
    folder, rows = made
    facts = make_card(folder / "t3", quiet=True).numerical[0]
    train, test = (
        pl.Series(np.fromfile(folder / "t3" / split / "numerical.bin", np.float16).reshape(-1, 13)[:, 0].astype(float))
        for split in ("train", "test")
    )
    assert (facts.smallest, facts.largest) == (train.min(), train.max())
    assert facts.mean == pytest.approx(train.mean())
    assert facts.quantiles == {share: train.quantile(share, "lower") for share in (0.01, 0.25, 0.5, 0.75, 0.99)}
    assert facts.zeros == rows[:800][NUM_0].null_count() / 800
    inside = np.clip(train.to_numpy(), facts.edges[0], facts.edges[-1])
    assert facts.shares["train"] == pytest.approx(np.histogram(inside, facts.edges)[0] / 800)
    assert list(facts.shares) == ["train", "test"] and sum(facts.shares["test"]) == pytest.approx(1)
    places = np.union1d(train, test)
    assert facts.drift == pytest.approx(
        max(abs((train <= place).mean() - (test <= place).mean()) for place in places.tolist())
    )


def test_several_ids_a_sample_and_synthetic_ids(tmp_path):
    features = [Feature("a", "", 9, hotness=2, alpha=1.0), Feature("b", "", 9, ragged=True, alpha=1.0)]
    spec = tf_raw_spec(features, num_numerical=1, splits=("train",))
    with Writer(tmp_path, spec, "train") as writer:
        ids = {"a": Ids(np.array([0, 1, 0, 2, 0, 8]), np.full(3, 2, np.int32)),
               "b": Ids(np.array([3, 3, 0]), np.array([2, 0, 1], np.int32))}  # fmt: skip
        writer.write(Batch(np.array([1, 0, 1], bool), np.zeros((3, 1), np.float16), ids))
    spec.save(tmp_path / "feature_spec.yaml")
    card = make_card(tmp_path, embedding_dim=16, quiet=True)
    a, b = card.categorical
    assert (a.occurrences, a.num_ids, a.rest, a.empty) == ({"train": 6}, 4, None, None)
    assert (a.top[1], b.top[1], b.occurrences, b.empty) == (3 / 6, 2 / 3, {"train": 3}, 1 / 3)
    assert a.drift is None and card.numerical[0].drift is None and a.coverage.share(2) == 3 / 6
    assert card.table_bytes(a.table_rows) == 9 * 16 * 4
    text = card_page(card)
    assert "ids, 2 a sample" in text and "ids, ragged" in text and "without a manifest" in text
    assert "which rows came from which file is not known" in text


@pytest.mark.parametrize("sizes", [{"train": 5, "test": 0}, {"train": 0, "test": 3}, {"test": 1}])
def test_splits_without_samples(tmp_path, sizes):
    spec = tf_raw_spec([Feature("a", "", 9), Feature("b", "", 9, ragged=True)], num_numerical=1, splits=tuple(sizes))
    for split, rows in sizes.items():
        with Writer(tmp_path, spec, split) as writer:
            ids = {"a": Ids(np.ones(rows, np.int32)), "b": Ids(np.empty(0, np.int32), np.zeros(rows, np.int32))}
            writer.write(Batch(np.ones(rows, bool), np.zeros((rows, 1), np.float16), ids))
    spec.save(tmp_path / "feature_spec.yaml")
    card = make_card(tmp_path, quiet=True)
    assert [(each.split, each.rows, each.rate) for each in card.labels.splits] == [
        (split, rows, 1.0 if rows else None) for split, rows in sizes.items()
    ]
    a, b = card.categorical
    base = next(iter(sizes.values()))
    assert (a.num_ids, a.top[1], a.drift) == (min(base, 1), float(base > 0), None) and b.num_ids == 0
    assert len(card.numerical) == (base > 0) and "100 %" in card_page(card)


def test_many_ids_are_counted_in_parts(made):
    folder, _ = made
    dataset = Dataset(folder / "keys")
    feature = dataset.spec.categorical[0]
    in_parts, whole = (categorical_facts(dataset, feature, most_ids=number) for number in (20, 10**6))
    assert (in_parts.num_ids, in_parts.top, in_parts.exponent) == (whole.num_ids, whole.top, whole.exponent)
    assert in_parts.drift.variation == pytest.approx(whole.drift.variation) and in_parts.rest == whole.rest
    assert in_parts.num_ids > 40


def test_datasets_without_vocabularies(made, tmp_path):
    """New rows that were encoded, a dataset of another program, and one with some keys."""
    folder, _ = made
    encode(folder / "t3", [folder / "days" / "day_0"], destination=tmp_path / "new", resources=QUIET)
    card = make_card(tmp_path / "new", quiet=True)
    assert [(each.name, each.split, each.rows) for each in card.labels.files] == [("day_0", "test", 500)]
    assert (
        card.categorical[0].drift is None
        and card.categorical[0].coverage.source == "counts of the ids in the test split"
    )
    small = write_dataset(tmp_path / "small")
    write_keys(small, tmp_path / "some_keys", ("cat_2",))
    card = make_card(tmp_path / "some_keys", quiet=True)
    assert [each.feature.key for each in card.categorical] == [False, False, True, False, False]
    ids = np.fromfile(tmp_path / "small" / "train" / "cat_2.bin", small.features["cat_2"].dtype)
    assert card.categorical[2].num_ids == len(np.unique(ids)) and card.categorical[2].rest == 0
    text = card_page(card)
    assert "Features without a vocabulary are counted by their ids or keys" in text


class Charts(HTMLParser):
    """The charts of a page by their titles, and its texts; checks that every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.titles, self.documents, self.texts = [], [], {}, []
        self.feed(text)
        self.close()
        assert self.open == []
        self.charts = dict(zip(self.titles, self.documents.values(), strict=True))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag != "meta":
            self.open.append((tag, attributes.get("id", "")))
        if attributes.get("class") == "chart":
            assert attributes["data-chart"] == str(len(self.titles))
            self.titles.append(attributes["aria-label"])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, text):
        tag, name = self.open[-1] if self.open else ("", "")
        if name.startswith("chart-"):
            self.documents[name] = json.loads(text)
        elif tag not in ("script", "style"):
            self.texts.append(text)


def run(capsys, *argv):
    """Returns (exit code, stdout, stderr)."""
    code = cli.main([str(word) for word in argv])
    return code, *capsys.readouterr()


def test_the_page(made, tmp_path, capsys):
    folder, rows = made
    output = tmp_path / "card.html"
    code, out, err = run(capsys, "report", folder / "t3", "-o", output, "--embedding-dim", "16")
    assert (code, out) == (0, f"{output}: written\n") and err.startswith("report: 28 features in ")
    text = output.read_text(encoding="utf-8")
    page = Charts(text)
    both = ["Share of occurrences that T keeps", "Bytes of all tables at width 16"]
    names = [*(f"cat_{i}" for i in range(26)), *(f"num_{i}" for i in range(13))]
    assert page.titles == ["Label rate by file", *both, *names]
    days = page.charts["Label rate by file"]["datasets"]["bars"]
    assert [day["name"] for day in days] == ["day_0", "day_1", "day_2 (test)", "day_2 (validation)"]
    assert days[0]["value"] == rows[:500][LABEL].cast(pl.Int64).mean()
    counts = counts_of(rows, CAT_0)
    curve = page.charts["cat_0"]["datasets"]["curves"]
    assert [(point["x"], point["y"]) for point in curve[:3]] == [
        (T, pytest.approx(100 * counts.filter(pl.col("len") >= T)["len"].sum() / len(rows))) for T in (3, 4, 5)
    ]
    assert {"Dataset card: t3", "1,201 samples, 13 numerical and 26 categorical features; made by criteo-prep "
            "preprocess."} <= set(page.texts)  # fmt: skip
    assert any("What a lower threshold keeps is not known" in line for line in page.texts)


def test_the_page_needs_nothing_else_and_knows_light_and_dark(made, tmp_path, capsys):
    folder, _ = made
    assert run(capsys, "report", folder / "t0", "-o", tmp_path / "card.html", "--quiet")[0] == 0
    text = (tmp_path / "card.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text and "width=device-width" in text
    outside = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert not re.search(r"https?:|<link|<img|src=|@import|@font-face|url\(", outside)
    assert not re.search(r"<script[^>]+src", text) and text.count("window.vegaEmbed=") == 1
    assert len(text) < 2_000_000


def test_what_is_refused_in_one_line(made, tmp_path, capsys):
    folder, _ = made
    shutil.copytree(folder / "t3", tmp_path / "set")
    (tmp_path / "mine.html").write_text("<p>my own page</p>")
    (tmp_path / "empty").mkdir()
    FeatureSpec.load(tmp_path / "set" / "feature_spec.yaml")
    card = tmp_path / "card.html"
    cases = [
        (("nowhere", "-o", card), "feature_spec.yaml: "),
        ((tmp_path / "empty", "-o", card), "feature_spec.yaml: "),
        ((tmp_path / "set", "-o", tmp_path / "mine.html"), "is not replaced"),
        ((tmp_path / "set", "-o", tmp_path / "set" / "card.html"), "Name a destination outside it"),
        ((tmp_path / "set", "-o", card, "--embedding_dim", 0), "--embedding_dim 0: must be at least 1."),
    ]
    for arguments, message in cases:
        code, out, err = run(capsys, "report", *arguments, "--quiet")
        assert (code, out) == (1, "") and message in err and err.count("\n") == 1, err
    for name, damage, message in (
        ("vocabularies/cat_3.parquet", b"PAR1", "cat_3.parquet"),
        ("test/cat_1.bin", b"\x01", "cat_1.bin: holds 1 samples"),
        ("manifest.json", b"{}", "manifest.json: "),
        ("feature_spec.yaml", b"feature_spec: 3", "feature_spec.yaml"),
    ):
        whole = (tmp_path / "set" / name).read_bytes()
        (tmp_path / "set" / name).write_bytes(damage)
        code, out, err = run(capsys, "report", tmp_path / "set", "-o", card, "--quiet")
        assert (code, out) == (1, "") and message in err and err.count("\n") == 1, err
        (tmp_path / "set" / name).write_bytes(whole)
    assert not card.exists() and (tmp_path / "mine.html").read_text() == "<p>my own page</p>"


def test_a_page_of_this_program_is_replaced(made, tmp_path, capsys):
    folder, _ = made
    card = tmp_path / "card.html"
    card.write_bytes(b"")
    for name in ("t0", "t3"):
        assert run(capsys, "report", folder / name, "-o", card, "--quiet")[0] == 0
    assert "Dataset card: t3" in card.read_text(encoding="utf-8")


def test_an_unlabelled_name_and_a_layout_that_must_be_transcribed(tmp_path, capsys):
    """Text of the user stays text in the page; a layout without places is refused with what to do."""
    write_dataset(tmp_path / "<b>&set", train=20, test=5)
    card = card_page(make_card(tmp_path / "<b>&set", quiet=True))
    assert "<b>" not in card and "&lt;b&gt;&amp;set" in card
    code = cli.main(["transcribe", "--src_dataset_path", str(tmp_path / "<b>&set"), "--dst_dataset_path",
                     str(tmp_path / "csv"), "--dst_dataset_type", "csv"])  # fmt: skip
    assert code == 0
    capsys.readouterr()
    code, _, err = run(capsys, "report", tmp_path / "csv", "-o", tmp_path / "card.html", "--quiet")
    assert code == 1 and "Transcribe the dataset to tf_raw" in err and err.count("\n") == 1


def test_without_the_library_of_charts_nothing_is_read(made, tmp_path):
    folder, _ = made
    code = (
        "import sys; sys.modules['altair'] = None; from criteo_prep import cli; "
        f"sys.exit(cli.main(['report', {str(folder / 't3')!r}, '-o', {str(tmp_path / 'card.html')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and not (tmp_path / "card.html").exists()
    assert done.stderr == (
        "criteo-prep: charts need the packages altair and vl-convert-python. Install them: pip install "
        "'criteo-dlrm[report]'\n"
    )
