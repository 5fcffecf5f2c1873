"""The card of a dataset as a page: tables, and the charts that decide the threshold."""

from criteo_prep.pages.bar_charts import bar_chart, histogram_chart
from criteo_prep.pages.card import Card
from criteo_prep.pages.categorical_facts import TOP, CategoricalFacts
from criteo_prep.pages.charts import Axes, Curve, line_chart
from criteo_prep.pages.coverage import THRESHOLDS, base_split
from criteo_prep.pages.label_facts import RowsFacts
from criteo_prep.pages.numbers import count_text, decimal_text, number_text, share_text
from criteo_prep.pages.numerical_facts import QUANTILES, NumericalFacts
from criteo_prep.pages.page import Page, table
from criteo_prep.sizes import shown_bytes

_T_AXIS = "threshold T"
_UNITS = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}  # of shown_bytes
_SHOWN_THRESHOLDS = (1, 2, 3, 5, 10, 15, 30, 100, 300, 1000)  # of the table


def card_page(card: Card) -> str:
    """The page, as HTML text."""
    dataset = card.dataset
    page = Page(f"Dataset card: {dataset.root.resolve().name}")
    made = f"made by {dataset.made_by}" if dataset.made_by else "without a manifest: who made it is not known"
    features = f"{len(card.numerical) or len(dataset.spec.numerical)} numerical and {len(card.categorical)} categorical"
    page.note(f"{sum(dataset.rows.values()):,} samples, {features} features; {made}.")
    _add_rows(page, card)
    if card.categorical:
        _add_thresholds(page, card)
        _add_categorical(page, card)
    if card.numerical:
        _add_numerical(page, card)
    page.details("How the numbers are defined", _definitions(card))
    return page.text()


def _add_rows(page: Page, card: Card) -> None:
    labels = card.labels
    page.heading("Rows and labels")
    page.table(["split", "rows", "label 1", "label rate"], [_rows_of(each) for each in labels.splits], numbers=True)
    if labels.note:
        page.note(labels.note)
    known = [each for each in labels.files if each.rate is not None]
    if len(labels.files) > 1 and known:
        names = [_name_of(each, labels.files) for each in known]
        rows = [(name, each.rate, f"{each.rows:,}") for name, each in zip(names, known, strict=True)]
        axes = Axes("file", "label rate", y_format=".1~%")
        page.figures([("Label rate by file", bar_chart(axes, rows, groups=[each.split for each in known]), "")])
    if labels.files:
        head = ["file", "rows", "label 1", "label rate", "split"]
        rows = [[*_rows_of(each), each.split] for each in labels.files]
        page.details(f"All {len(rows)} files", table(head, rows, numbers=True))


def _rows_of(facts: RowsFacts) -> list[str]:
    return [facts.name, f"{facts.rows:,}", count_text(facts.clicks), share_text(facts.rate)]


def _name_of(facts: RowsFacts, files: tuple[RowsFacts, ...]) -> str:
    """The name of a file, with the split where the rows of the file are in several."""
    several = len([each for each in files if each.name == facts.name]) > 1
    return f"{facts.name} ({facts.split})" if several else facts.name


def _add_thresholds(page: Page, card: Card) -> None:
    """What each threshold keeps, of all features together and of each."""
    page.heading("Which threshold")
    facts = card.categorical
    lowest = max(each.coverage.known_from for each in facts)
    page.note(
        "A value that occurs fewer than T times shares id 0; T 0 keeps as much as T 1. The bytes are of float32 tables "
        f"of width {card.embedding_dim}, without the optimizer's state."
    )
    if lowest > 1:
        page.note(
            f"The vocabularies hold the values from threshold {lowest} on. What a lower threshold keeps is not known: "
            "preprocess with --threshold 0 to see it."
        )
    if any(not each.coverage.source.startswith("vocabulary") for each in facts):
        page.note(
            "Features without a vocabulary are counted by their ids or keys in the train split. Values that were left "
            "out before are not among them."
        )
    largest = max(each.coverage.thresholds[-1] for each in facts)
    shown = [each for each in sorted({lowest, *THRESHOLDS}) if lowest <= each <= max(largest, lowest)]
    figures = [_shares_of_all(facts, shown), _bytes_of_all(card, shown)]
    page.figures(figures)
    head = ["T", "rows of all tables", "bytes", "share kept, mean", "share kept, least", "feature with the least"]
    in_table = [each for each in sorted({lowest, *_SHOWN_THRESHOLDS}) if each in shown]
    page.table(head, [_threshold_row(card, threshold) for threshold in in_table], numbers=True)
    page.figures([_coverage_figure(card, each) for each in facts])


def _threshold_row(card: Card, threshold: int) -> list[str]:
    shares = {each.feature.name: each.coverage.share(threshold) for each in card.categorical}
    rows = sum(each.coverage.table_rows(threshold) for each in card.categorical)
    least = min(shares, key=lambda name: shares[name])
    mean = sum(shares.values()) / len(shares)
    size = shown_bytes(card.table_bytes(rows))
    return [f"{threshold}", f"{rows:,}", size, share_text(mean), share_text(shares[least]), least]


def _shares_of_all(facts: list[CategoricalFacts], thresholds: list[int]) -> tuple[str, dict, str]:
    axes = Axes(_T_AXIS, "% of the occurrences", from_zero=True, logarithmic=True, y_format="~f")
    shares = {T: [100 * each.coverage.share(T) for each in facts] for T in thresholds}
    mean, least = "mean of the features", "feature that loses most"
    curves = [
        Curve(mean, [(T, sum(of_features) / len(facts)) for T, of_features in shares.items()], mean),
        Curve(least, [(T, min(of_features)) for T, of_features in shares.items()], least),
    ]
    return "Share of occurrences that T keeps", line_chart(axes, curves), ""


def _bytes_of_all(card: Card, thresholds: list[int]) -> tuple[str, dict, str]:
    rows = {T: sum(each.coverage.table_rows(T) for each in card.categorical) for T in thresholds}
    unit = shown_bytes(card.table_bytes(max(rows.values()))).split()[1]
    axes = Axes(_T_AXIS, unit, from_zero=True, logarithmic=True, y_format="~f")
    points = [(T, card.table_bytes(number) / _UNITS[unit]) for T, number in rows.items()]
    notes = {"rows": {T: f"{number:,}" for T, number in rows.items()}}
    chart = line_chart(axes, [Curve(unit, points, "all tables")], notes=notes)
    return f"Bytes of all tables at width {card.embedding_dim}", chart, ""


def _coverage_figure(card: Card, facts: CategoricalFacts) -> tuple[str, dict, str]:
    coverage = facts.coverage
    points = [(T, 100 * coverage.share(T)) for T in coverage.thresholds]
    notes = {
        "rows": {T: f"{coverage.table_rows(T):,}" for T, _ in points},
        "bytes": {T: shown_bytes(card.table_bytes(coverage.table_rows(T))) for T, _ in points},
    }
    axes = Axes(_T_AXIS, "% of the occurrences", from_zero=True, logarithmic=True, y_format="~f")
    chart = line_chart(axes, [Curve("% kept", points, "kept")], notes=notes)
    size = shown_bytes(card.table_bytes(facts.table_rows))
    return facts.feature.name, chart, f"{facts.table_rows:,} rows, {size}. By the {coverage.source}."


def _add_categorical(page: Page, card: Card) -> None:
    page.heading("Categorical features")
    head = ["feature", "kind", "cardinality", "bytes of the table", "ids in train"]
    head += ["id 0: missing, rare or unseen", *(f"top {number:,}" for number in TOP), "exponent"]
    head += ["drift", "drift by chance", "unseen in test"]
    head += ["samples without ids"] if any(each.feature.ragged for each in card.categorical) else []
    page.table(head, [_categorical_row(card, each)[: len(head)] for each in card.categorical], numbers=True)


def _categorical_row(card: Card, facts: CategoricalFacts) -> list[str]:
    feature, drift = facts.feature, facts.drift
    kind = "keys" if feature.key else "ids"
    if feature.ragged:
        kind += ", ragged"
    elif feature.hotness > 1:
        kind += f", {feature.hotness} a sample"
    rest = share_text(facts.rest)
    if facts.rest is not None and facts.rest_is_missing:
        rest += " (missing)"
    return [
        feature.name,
        kind,
        "–" if feature.key else f"{feature.cardinality:,}",
        shown_bytes(card.table_bytes(facts.table_rows)),
        f"{facts.num_ids:,}",
        rest,
        *(share_text(facts.top[number]) for number in TOP),
        decimal_text(facts.exponent),
        decimal_text(drift and drift.variation),
        decimal_text(drift and drift.by_chance),
        share_text(drift and drift.unseen),
        share_text(facts.empty),
    ]


def _add_numerical(page: Page, card: Card) -> None:
    page.heading("Numerical features")
    head = ["feature", "exactly 0", "least", *(f"{share:.0%}" for share in QUANTILES), "largest", "mean", "drift"]
    page.table(head, [_numerical_row(each) for each in card.numerical], numbers=True)
    page.figures([(each.name, histogram_chart("value", each.edges, each.shares), "") for each in card.numerical])


def _numerical_row(facts: NumericalFacts) -> list[str]:
    numbers = [facts.smallest, *facts.quantiles.values(), facts.largest, facts.mean]
    drift = decimal_text(facts.drift)
    return [facts.name, share_text(facts.zeros), *(number_text(number) for number in numbers), drift]


def _definitions(card: Card) -> str:
    """A table of terms, as HTML."""
    base = base_split(card.dataset)
    rows = [
        [
            "share kept",
            "occurrences of the values that occur T times or more, of all occurrences, also missing ones",
        ],
        ["ids in train", f"different ids in the {base} split, id 0 left out where it stands for other values"],
        [
            "id 0",
            "share of id 0, or of the key -1. Missing and rare values are one, except with T 0 and with keys",
        ],
        ["top k", f"share of the k most frequent ids in the {base} split; id 0 is not one of them"],
        [
            "exponent",
            "s in count ~ rank^-s: least squares over logarithms, at 50 ranks of equal ratios, counts from 10",
        ],
        [
            "drift",
            "total variation distance of the ids of train and test: 0 for equal shares, 1 for no common id",
        ],
        ["drift by chance", "about what two samples of these sizes have without any drift; rare ids make it large"],
        ["unseen in test", "share of the ids in the test split that the train split does not have"],
        ["exactly 0", "by Criteo's rule a missing numerical is stored as 0, and so is a value whose transform is 0"],
        ["drift of a numerical", "Kolmogorov-Smirnov: the largest difference of the two distribution functions"],
        ["histograms", "from the 0.1 % to the 99.9 % quantile of train; the outer bins also have the values beyond"],
    ]
    return table([], rows)
