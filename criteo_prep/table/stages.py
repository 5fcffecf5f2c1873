"""The stages of making a dataset from a log that a schema describes. Each stage resumes where a run was stopped.

parse     input files -> label, numbers, splits and values of all rows
arrange   label and transformed numbers -> the splits
columns   values -> vocabularies and ids
finish    feature spec, checksums, manifest
"""

import shutil
from pathlib import Path

from criteo_prep import manifest
from criteo_prep.durable import force_tree
from criteo_prep.messages import shown
from criteo_prep.parallel import in_order
from criteo_prep.preprocess.request import Resources
from criteo_prep.table.arrange import arrange, number_blocks
from criteo_prep.table.columns import TableColumns
from criteo_prep.table.document_values import SchemaError
from criteo_prep.table.journal import TableJournal
from criteo_prep.table.parse import TableParsing, check_columns, parse_tables, refuse_no_rows
from criteo_prep.table.preflight import check_resources
from criteo_prep.table.request import FEATURE_SPEC, TableRequest, TableWork, is_ragged
from criteo_prep.table.splits import all_test, splits_of
from criteo_prep.table.transforms import statistics


def make_table_dataset(
    root: Path, destination: Path, *, request: TableRequest, journal: TableJournal, resources: Resources
) -> tuple[str, ...]:
    """Writes what the dataset still lacks. Returns warnings, one line each.

    Args:
      root: the staging folder, with the finished part of the work.
      destination: the folder that `root` becomes.
      request: what to make.
      journal: which part of the work is finished.
      resources: threads, memory and progress.
    """
    if not journal.parsed:
        _parse(root, destination, request=request, journal=journal, resources=resources)
    refuse_no_rows(journal)
    _check_shuffle(request, journal)
    splits = all_test(journal.num_rows) if request.given else splits_of(request.schema.split, request.files, journal)
    work = TableWork(root, request, journal=journal, splits=splits)
    known = request.given.statistics if request.given else _statistics(work)
    with resources.progress("arrange", journal.num_rows, "rows") as progress:
        arranged = arrange(work, known, progress.advance)
    total = 2 * journal.num_rows * len(request.schema.categorical)
    with resources.progress("columns", total, "values") as progress:
        cardinalities, files = TableColumns(work, resources.memory, progress.advance).run()
    spec = work.spec(cardinalities)
    spec.save(root / FEATURE_SPEC)
    arranged.append(FEATURE_SPEC)
    entries = in_order(lambda name: manifest.block_entry(root / name), arranged, workers=resources.memory.workers)
    files |= dict(zip(arranged, entries, strict=True))
    finish(work, files=files, known=known)
    return _warnings(work)


def finish(work: TableWork, *, files: dict[str, dict], known: dict[str, dict]) -> None:
    """Writes the manifest, when everything is on the disk, and deletes the work files."""
    wanted, journal = work.request.wanted, work.journal
    inputs = [
        {**entry, "rows": file.num_rows, "skipped": file.skipped}
        for entry, file in zip(wanted["inputs"], journal.files, strict=True)
    ]
    document = {
        "made_by": wanted["made_by"],
        "versions": manifest.versions_of(("numpy", "numba", "pyarrow", "polars", "xxhash")),
        "inputs": inputs,
        "rules": wanted["rules"],
        "columns": {each.feature: each.column for each in (*work.schema.numerical, *work.schema.categorical)},
        "statistics": known,
        "splits": {split: {"num_samples": rows} for split, rows in work.splits.num_rows.items()},
        "files": dict(sorted(files.items())),
    }
    force_tree(work.root)
    manifest.save_manifest(work.root, document)
    shutil.rmtree(work.root / "work")


def _parse(
    root: Path, destination: Path, *, request: TableRequest, journal: TableJournal, resources: Resources
) -> None:
    paths, memory = request.files.all, resources.memory
    parsing = TableParsing(
        request.schema,
        request.skip_bad_rows,
        labelled=request.labelled,
        workers=memory.workers,
        checkpoint_bytes=resources.checkpoint_bytes,
    )
    unused = check_columns(paths, request.schema, parsing.columns)
    written = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    preflight = check_resources(paths, destination, plan=memory, parsing=parsing, written=written)
    resources.say(str(preflight))
    if unused:
        names = ", ".join(map(shown, unused[:10])) + (", ..." if len(unused) > 10 else "")
        resources.say(f"{len(unused)} columns are not in the schema and are left out: {names}")
    with resources.progress("parse", max(preflight.num_rows - journal.num_rows, 1), "rows") as progress:
        parse_tables(paths, journal=journal, parsing=parsing, progress=progress)


def _check_shuffle(request: TableRequest, journal: TableJournal) -> None:
    """Raises SchemaError for lists of different lengths, of which there is no random order."""
    for each, kind in zip(request.schema.categorical, journal.kinds, strict=True):
        if request.seed is not None and is_ragged(each.hotness, kind):
            raise SchemaError(
                f"--shuffle global: column {shown(each.column)} has lists of different lengths, which have no shuffle. "
                "Give the column a hotness in the schema, or leave the flag out (dlrm --shuffle shuffles in training)."
            )


def _statistics(work: TableWork) -> dict[str, dict]:
    rows = work.splits.num_rows["train"]
    return statistics(work.schema.numerical, lambda: number_blocks(work, "train"), num_rows=rows)


def _warnings(work: TableWork) -> tuple[str, ...]:
    files, label = work.journal.files, work.schema.label
    lines = [f"{path}: was not read; its name has no known ending" for path in work.request.files.ignored]
    lines += [f"skipped: {where}" for file in files for where in file.first_skipped.values()]
    lines += [f"{file.path}: holds no row" for file in files if file.num_rows == 0]
    lines += [f"split {split} has no samples" for split, rows in work.splits.num_rows.items() if not rows]
    if work.request.labelled and work.journal.num_positive in (0, work.journal.num_rows):
        which = "no" if work.journal.num_positive == 0 else "every"
        lines.append(f"column {shown(label.column)}: {which} row has the positive value {shown(label.positive)}")
    return tuple(lines)
