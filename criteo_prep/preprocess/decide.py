"""What `preprocess` does about the files that it finds: one decision, made by a pure function.

The table "Running again" of docs/criteo.md states the decision in words; the test reads that table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from criteo_prep import manifest
from criteo_prep.preprocess.columns.keys import KEY_RULE
from criteo_prep.preprocess.journal import Journal, ParsedFile
from criteo_prep.preprocess.request import DatasetRequest
from criteo_prep.preprocess.rules import per_column
from criteo_prep.schema import CATEGORICAL

# What a dataset is derived from. (None stands for the inputs.)
RAW, IDS = "raw columns", "ids"

_RULES_OF_IDS = {"threshold", "max_cardinality", "cap", "vocabulary_days"}
_RULES_OF_PARSING = {"on_bad_row", "labels", "numerical"}
_RULES_OF_SPLITS = {"inputs", "split", "shuffle", "seed"}


class Action(Enum):
    COMPLETE = "complete"  # the dataset is finished: nothing is done
    RESUME = "resume"  # the work of a stopped run is used
    DERIVE = "derive"  # the dataset is made from a finished one, and nothing is parsed
    REBUILD = "rebuild"  # the inputs are parsed from their first row
    REFUSE = "refuse"  # the destination holds another dataset


@dataclass(frozen=True)
class Existing:
    """A finished dataset at the destination.

    Attributes:
      manifest: the manifest of the dataset.
      folded: categorical columns with more values than ids, because a cap folds the ids.
    """

    manifest: dict
    folded: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Unfinished:
    """The work of a stopped run.

    Attributes:
      journal: how far the run was; None where the journal is missing or no longer counts.
      raw_rows: rows that the raw columns of all 26 features hold; -1 where one of the columns is missing.
      is_arranged: the labels or numericals of all rows are already distributed over the splits.
      finished: the manifest, where the run was stopped after it wrote the manifest and every file has its size.
    """

    journal: Journal | None
    raw_rows: int = -1
    is_arranged: bool = False
    finished: dict | None = None


@dataclass(frozen=True)
class Decision:
    """What to do.

    Attributes:
      action: see Action.
      source: what the dataset is derived from: RAW, IDS, or None for the inputs.
      differences: how the finished dataset differs from the wanted one, one line each.
      outdated: how the unfinished work differs from the wanted dataset, one line each.
      kept_files: parsed files of the unfinished work that are used, where RESUME cannot use all of the work.
      is_finished: the unfinished work lacks nothing but its final name.
    """

    action: Action
    source: str | None = None
    differences: tuple[str, ...] = ()
    outdated: tuple[str, ...] = ()
    kept_files: tuple[ParsedFile, ...] = ()
    is_finished: bool = False


def decide(existing: Existing | None, unfinished: Unfinished | None, wanted: DatasetRequest) -> Decision:
    """Decides how a dataset is made, from the state of the disk. Reads and writes nothing.

    Args:
      existing: the finished dataset at the destination; None where there is no such dataset, or it is overwritten.
      unfinished: the work of a stopped run; None where there is no such work.
      wanted: what is to be made.
    """
    source, differences = None, ()
    if existing:
        differences = tuple(manifest.differences(existing.manifest, wanted.wanted))
        if not differences:
            return Decision(Action.COMPLETE)
        if not _differs_in_ids_only(existing.manifest, wanted.wanted):
            return Decision(Action.REFUSE, differences=differences)
        source = _source(existing, wanted)
    if unfinished and _is_finished(unfinished, wanted):
        return Decision(Action.RESUME, source, differences=differences, is_finished=True)
    begin = Action.DERIVE if source else Action.REBUILD
    if unfinished is None or unfinished.journal is None or unfinished.journal.source != source:
        return Decision(begin, source, differences=differences)
    journal = unfinished.journal
    outdated = tuple(manifest.differences(journal.wanted, wanted.wanted))
    if not outdated:
        lacks_raw = wanted.keep_raw and journal.parsed and unfinished.raw_rows < journal.num_rows
        return Decision(begin if lacks_raw else Action.RESUME, source, differences=differences)
    kept = () if source else tuple(_reusable_files(unfinished, wanted.wanted))
    return Decision(
        Action.RESUME if kept else begin, source, differences=differences, outdated=outdated, kept_files=kept
    )


def has_raw(document: dict) -> bool:
    """Whether a dataset, by its manifest, keeps its raw columns."""
    return f"raw/{CATEGORICAL[0]}.raw" in document["files"]


def _differs_in_ids_only(old: dict, new: dict) -> bool:
    """Whether a dataset and a wanted one have the same samples, but for the ids."""
    if old["made_by"] != new["made_by"] or len(old["inputs"]) != len(new["inputs"]):
        return False
    same = all(
        all(before.get(key) == value for key, value in after.items())
        for before, after in zip(old["inputs"], new["inputs"], strict=True)
    )
    # Another text of the rule for ids is another version of this program, except where keys and ids take turns.
    either = {"ids"} if KEY_RULE in (old["rules"].get("ids"), new["rules"].get("ids")) else set()
    return same and _changed_rules(old, new) <= _RULES_OF_IDS | either


def _changed_rules(old: dict, new: dict) -> set[str]:
    old, new = old["rules"], new["rules"]
    return {key for key in {**old, **new} if old.get(key) != new.get(key)}


def _source(existing: Existing, wanted: DatasetRequest) -> str | None:
    """What other ids of a finished dataset can be made from: RAW, IDS, or None where the inputs must be parsed."""
    old = existing.manifest
    if has_raw(old):
        return RAW
    if wanted.keep_raw or _changed_rules(old, wanted.wanted) != {"threshold"}:
        return None
    thresholds = zip(
        CATEGORICAL, per_column("threshold", old["rules"]["threshold"]), wanted.rules.thresholds, strict=True
    )
    for name, before, after in thresholds:
        is_lower = max(after, 1) < max(before, 1)
        if after != before and (is_lower or name in existing.folded):
            return None
    return IDS


def _is_finished(unfinished: Unfinished, wanted: DatasetRequest) -> bool:
    """Whether a run was stopped between its last file and the renaming of its folder."""
    document = unfinished.finished
    if document is None or (wanted.keep_raw and not has_raw(document)):
        return False
    return not manifest.differences(document, wanted.wanted)


def _reusable_files(unfinished: Unfinished, new: dict) -> Sequence[ParsedFile]:
    """The parsed files of a run with other inputs or rules that the wanted dataset can be made from."""
    journal = unfinished.journal
    old, files = journal.wanted, journal.files
    if old["made_by"] != new["made_by"]:
        return ()
    changed = _changed_rules(old, new)
    if old["inputs"] != new["inputs"]:
        pairs = enumerate(zip(old["inputs"], new["inputs"], strict=False))
        first_other = next((n for n, (a, b) in pairs if a != b), min(len(old["inputs"]), len(new["inputs"])))
        files = [file for file in files[:first_other] if file.finished]
        changed.add("inputs")
    if "on_truncated" in changed and any("truncated" in file.skipped for file in files):
        return ()
    if changed & _RULES_OF_PARSING or (changed & _RULES_OF_SPLITS and unfinished.is_arranged):
        return ()
    return files if unfinished.raw_rows >= sum(file.num_rows for file in files) else ()
