"""What `preprocess --schema` does about the files that it finds: one decision, made by a pure function.

The same decisions as without a schema (preprocess/decide.py), without raw columns, and with less of a stopped run of
other rules: its work is made again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from criteo_prep import manifest
from criteo_prep.preprocess.decide import Action
from criteo_prep.table.finished import load_finished
from criteo_prep.table.journal import TableJournal
from criteo_prep.table.request import TableRequest

__all__ = ["Action", "TableDecision", "TableUnfinished", "decide", "read_existing", "read_unfinished"]

_RULES_OF_IDS = {"threshold", "max_cardinality", "cap", "vocabulary_days"}


@dataclass(frozen=True)
class TableUnfinished:
    """The work of a stopped run.

    Attributes:
      journal: how far the run was; None where the journal is missing or no longer counts.
      finished: the manifest, where the run was stopped after it wrote the manifest and every file has its size.
    """

    journal: TableJournal | None
    finished: dict | None = None


@dataclass(frozen=True)
class TableDecision:
    """What to do.

    Attributes:
      action: see preprocess.decide.Action.
      differences: how the finished dataset differs from the wanted one, one line each.
      outdated: how the unfinished work differs from the wanted dataset, one line each.
      is_finished: the unfinished work lacks nothing but its final name.
    """

    action: Action
    differences: Sequence[str] = ()
    outdated: Sequence[str] = ()
    is_finished: bool = False


def decide(existing: dict | None, unfinished: TableUnfinished | None, request: TableRequest) -> TableDecision:
    """Decides how a dataset is made. Reads and writes nothing.

    Args:
      existing: the manifest of the finished dataset at the destination; None where there is no such dataset, or it is
        overwritten.
      unfinished: the work of a stopped run; None where there is no such work.
      request: what is to be made.
    """
    differences: Sequence[str] = ()
    begin, wanted = Action.REBUILD, request.wanted
    if existing:
        differences = tuple(manifest.differences(existing, wanted))
        if not differences:
            return TableDecision(Action.COMPLETE)
        if not _differs_in_ids_only(existing, wanted):
            return TableDecision(Action.REFUSE, differences)
        begin = Action.DERIVE if _can_derive(existing, request) else Action.REBUILD
    if unfinished and unfinished.finished and not manifest.differences(unfinished.finished, wanted):
        return TableDecision(Action.RESUME, differences, is_finished=True)
    if unfinished is None or unfinished.journal is None:
        return TableDecision(begin, differences)
    if outdated := tuple(manifest.differences(unfinished.journal.wanted, wanted)):
        return TableDecision(begin, differences, outdated=outdated)
    return TableDecision(Action.RESUME, differences)


def read_existing(dataset: Path) -> dict | None:
    """The manifest of the finished dataset in a folder; None where the folder has no manifest.

    Raises:
      ManifestError: the manifest is damaged, or a file is missing or has another size.
    """
    if not (dataset / manifest.MANIFEST).exists():
        return None
    document = load_finished(dataset)
    manifest.check_files(dataset, document)
    return document


def read_unfinished(root: Path) -> TableUnfinished | None:
    """The work in a staging folder; None where there is none."""
    journal, finished = TableJournal.load(root / "work"), None
    if (root / manifest.MANIFEST).exists():
        try:
            finished = load_finished(root)
            manifest.check_files(root, finished)
        except manifest.ManifestError:  # the run was killed while it deleted the folder
            finished = None
    if journal is None and finished is None and not (root / "work").exists():
        return None
    return TableUnfinished(journal, finished)


def _changed_rules(old: dict, new: dict) -> set[str]:
    old, new = old["rules"], new["rules"]
    return {key for key in {**old, **new} if old.get(key) != new.get(key)}


def _differs_in_ids_only(old: dict, new: dict) -> bool:
    """Whether a dataset and a wanted one have the same samples, but for the ids."""
    if old["made_by"] != new["made_by"] or len(old["inputs"]) != len(new["inputs"]):
        return False
    pairs = zip(old["inputs"], new["inputs"], strict=True)
    same = all(all(before.get(key) == value for key, value in after.items()) for before, after in pairs)
    return same and _changed_rules(old, new) <= _RULES_OF_IDS


def _can_derive(old: dict, request: TableRequest) -> bool:
    """Whether the ids of a finished dataset say the wanted ids: no threshold is lower, and no cap folds ids."""
    if _changed_rules(old, request.wanted) != {"threshold"} or old["rules"].get("max_cardinality"):
        return False
    before = old["rules"]["threshold"]
    return all(max(each.threshold, 1) >= max(before[each.feature], 1) for each in request.schema.categorical)
