"""The whole way from a log and its schema to a dataset: find the files, decide what to do, do it, report."""

from collections.abc import Sequence
from pathlib import Path

from criteo_prep import manifest
from criteo_prep.destination import new_dataset, recover
from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.guard import check_apart
from criteo_prep.manifest import DamagedError
from criteo_prep.preprocess.columns.vocabulary import CAP_RULE, ID_RULE
from criteo_prep.preprocess.locations import Location, local_paths
from criteo_prep.preprocess.parse.text_stream import InputError
from criteo_prep.preprocess.parse.tsv import BadRowError
from criteo_prep.preprocess.request import Resources
from criteo_prep.preprocess.run import DifferentDatasetError, Outcome, input_entry
from criteo_prep.preprocess.unfinished import discard
from criteo_prep.schema import NUMERICAL_RULE
from criteo_prep.table.decide import Action, TableDecision, decide, read_existing, read_unfinished
from criteo_prep.table.derive import derive
from criteo_prep.table.document_values import SchemaError
from criteo_prep.table.files import find_files
from criteo_prep.table.journal import TableJournal
from criteo_prep.table.request import FEATURE_SPEC, PREPROCESS, TableRequest
from criteo_prep.table.schema import TableSchema
from criteo_prep.table.schema_document import load_schema
from criteo_prep.table.schema_in_manifest import document_of
from criteo_prep.table.stages import make_table_dataset


def preprocess_table(
    paths: Sequence[str | Location],
    destination: str | Path,
    *,
    schema: str | Path,
    options: dict,
    overwrite: bool = False,
    resources: Resources | None = None,
) -> Outcome:
    """Makes a dataset from any click log. The dataset appears whole or not at all.

    The work of a stopped run is resumed. A finished dataset of the same samples with other thresholds or caps is
    replaced; it is the source where all thresholds are higher, and else the inputs are parsed again.

    Args:
      paths: files, folders and patterns; see files.find_files.
      destination: the dataset folder.
      schema: the file of the schema.
      options: fields of TableRequest that change the samples: vocabulary_days, skip_bad_rows, seed.
      overwrite: make the dataset again, and replace the one at the destination when the new one is finished.
      resources: threads, memory and progress; they do not change the bytes.

    Raises:
      SchemaError, BadRowError, InputError: the schema, a row or a file is wrong.
      DifferentDatasetError: the destination holds a dataset of other inputs, or of other rules that are not about ids.
      DestinationError, PreflightError, OSError: see the modules.
    """
    table = load_schema(schema)
    files = find_files(paths, table.split, Path(schema).parent)
    wanted = {
        "made_by": PREPROCESS,
        "inputs": [input_entry(path) for path in files.all],
        "rules": rules_of(table, options),
    }
    reads = (Path(schema), *(path for path in local_paths([*files.all, *paths]) if path.exists()))
    request = TableRequest(table, files, wanted=wanted, reads=reads, **options)
    return carry_out(request, Path(destination), overwrite=overwrite, resources=resources or Resources())


def rules_of(schema: TableSchema, options: dict) -> dict:
    """The rules as the manifest has them."""
    caps = {each.feature: each.cap for each in schema.categorical if each.cap is not None}
    seed = options.get("seed")
    return {
        "schema": document_of(schema),
        "threshold": {each.feature: each.threshold for each in schema.categorical},
        **({"max_cardinality": caps, "cap": CAP_RULE} if caps else {}),
        "vocabulary_days": options.get("vocabulary_days", "all"),
        "on_bad_row": "skip" if options.get("skip_bad_rows") else "error",
        **({} if seed is None else {"shuffle": "global", "seed": seed}),
        "ids": ID_RULE,
        "log_shift": NUMERICAL_RULE,
    }


def carry_out(request: TableRequest, destination: Path, *, overwrite: bool, resources: Resources) -> Outcome:
    """Makes the requested dataset, unless it is already finished."""
    check_apart(destination, request.reads)
    recover(destination)
    existing = None if overwrite else read_existing(destination)
    decision = decide(existing, None, request)
    if decision.action is Action.COMPLETE:
        return _outcome(destination, already_complete=True)
    lines = "\n  ".join(["", *decision.differences])
    if decision.action is Action.REFUSE:
        raise DifferentDatasetError(
            f"{destination}: holds another dataset:{lines}\nName another destination, or add --overwrite to replace it."
        )
    if existing:
        source = (
            "its ids; nothing is parsed" if decision.action is Action.DERIVE else "the inputs, which are parsed again"
        )
        resources.say(f"{destination} is made again from {source}; it stays as it is until then:{lines}")
    replaces = overwrite or existing is not None
    warnings: tuple[str, ...] = ()
    with new_dataset(destination, reads=request.reads, overwrite=replaces, resume=True) as root:
        try:
            warnings = _make(root, destination, existing=existing, request=request, resources=resources)
        except (DamagedError, SchemaError, InputError, BadRowError):
            discard(root)  # the next run has other files or another schema, so it cannot use this work
            raise
        except BaseException:
            _remove_if_worthless(root)
            raise
    replaced = ("replaced the existing dataset: " + "; ".join(decision.differences),) if existing else ()
    return _outcome(destination, already_complete=False, warnings=(*warnings, *replaced))


def _make(
    root: Path, destination: Path, *, existing: dict | None, request: TableRequest, resources: Resources
) -> tuple[str, ...]:
    """Makes the dataset in the staging folder. Returns warnings."""
    unfinished = read_unfinished(root)
    decision = decide(existing, unfinished, request)
    if unfinished:
        resources.say(_fate(root, decision, unfinished.journal))
    if decision.is_finished:
        discard_work(root)
        return ()
    if decision.action is not Action.RESUME:
        discard(root)
        (root / "work").mkdir()
        journal = TableJournal(root / "work", request.wanted)
        if decision.action is Action.DERIVE:
            derive(root, destination, old=existing, request=request, resources=resources)
            return ()
    else:
        journal = unfinished.journal
    return make_table_dataset(root, destination, request=request, journal=journal, resources=resources)


def discard_work(root: Path) -> None:
    """Deletes the work files of a finished dataset."""
    for path in root.glob("work/*"):
        path.unlink()
    if (root / "work").exists():
        (root / "work").rmdir()


def _fate(root: Path, decision: TableDecision, journal: TableJournal | None) -> str:
    """What becomes of the unfinished work, for the user."""
    if decision.is_finished:
        return f"resuming {root}: all of it is finished"
    if decision.action is Action.RESUME:
        return f"resuming {root}: {journal.num_rows:,} rows are parsed"
    lines = "\n  ".join(["", *decision.outdated])
    end = f":{lines}" if decision.outdated else ""
    return f"the unfinished work in {root} cannot be used; all of it is made again{end}"


def _remove_if_worthless(root: Path) -> None:
    """Empties the folder of a run that failed, unless it holds parsed rows that the next run can use."""
    journal = TableJournal.load(root / "work")
    if (journal is None or journal.num_rows == 0) and not (root / manifest.MANIFEST).exists():
        discard(root)


def _outcome(destination: Path, *, already_complete: bool, warnings: tuple[str, ...] = ()) -> Outcome:
    return Outcome(
        manifest.load_manifest(destination),
        FeatureSpec.load(destination / FEATURE_SPEC),
        already_complete=already_complete,
        warnings=warnings,
    )
