"""The stages of making a dataset on a cluster: parse, rows, columns, finish. The driver's part; tasks do the work.

Each stage keeps what an earlier run has finished: parts of splits, label and numericals, columns.
"""

import functools
import os
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from criteo_prep.manifest import versions_of
from criteo_prep.preprocess.arrange import label_file, numerical_file
from criteo_prep.preprocess.distributed.checksums import file_entries
from criteo_prep.preprocess.distributed.cluster import Cluster, ClusterError, Tasks
from criteo_prep.preprocess.distributed.columns import ColumnStage, ParsedRows
from criteo_prep.preprocess.distributed.encode_rows import RowFiles, SplitFile, arrange_in_order, arrange_rows
from criteo_prep.preprocess.distributed.input_splits import plan_splits
from criteo_prep.preprocess.distributed.parse_split import SplitParsing, parse_split
from criteo_prep.preprocess.distributed.parsed_input import ParsedInput, finished_split
from criteo_prep.preprocess.distributed.row_ranges import make_file, row_ranges, rows_of_parts
from criteo_prep.preprocess.distributed.shared_folder import (
    ROWS,
    SharedFolder,
    discard_if_worthless,
    open_shared_folder,
)
from criteo_prep.preprocess.distributed.shuffled_rows import RandomOrder, ShuffledFiles, collect_rows
from criteo_prep.preprocess.journal import Journal
from criteo_prep.preprocess.parse.labels import refuse_unlabelled
from criteo_prep.preprocess.preflight import check_disk
from criteo_prep.preprocess.request import DatasetRequest, Resources
from criteo_prep.preprocess.stages import VERSIONED, finish, splits_of, warnings_of
from criteo_prep.schema import NUM_CATEGORICAL, NUM_NUMERICAL

_SPLITS_PER_CORE = 16  # splits in a wave of the parse; after each wave, errors are looked for in the order of the rows
_PROBES_PER_CORE = 2


def make_on_cluster(
    root: Path,
    destination: Path,
    *,
    request: DatasetRequest,
    resources: Resources,
    start_cluster: Callable[[], AbstractContextManager[Cluster]],
) -> tuple[str, ...]:
    """Writes what the dataset still lacks.

    Args:
      root: the staging folder.
      destination: the folder that `root` becomes.
      request: what to make.
      resources: sizes and progress.
      start_cluster: starts the cluster, which is not needed before the inputs were looked at.

    Returns:
      Warnings, one line each.
    """
    shared = open_shared_folder(root, request, sizes=resources.task_sizes, block_bytes=resources.block_bytes)
    try:
        if shared.note:
            resources.say(shared.note)
        refuse_unlabelled(request.inputs.files)
        written = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
        preflight = check_disk(
            request.inputs.files,
            destination,
            keep_raw=request.keep_raw,
            keys=request.rules.keys,
            written=written,
        )
        resources.say(preflight)
        with start_cluster() as cluster:
            tasks = Tasks(cluster, shared.probe)
            _check_machines(tasks)
            return _make(shared, request, tasks=tasks, resources=resources)
    except BaseException:
        discard_if_worthless(root)
        raise


def _make(shared: SharedFolder, request: DatasetRequest, *, tasks: Tasks, resources: Resources) -> tuple[str, ...]:
    parsed = _parse(shared, request, tasks=tasks, resources=resources)
    splits = splits_of(request.inputs, parsed.files)
    order = None if request.seed is None else RandomOrder.of(request.seed, len(splits["train"]))
    rows = ParsedRows(tuple(rows_of_parts(parsed.parts)), splits, order)
    with resources.progress("arrange", rows.num_rows, "rows") as progress:
        row_entries = _arrange(shared, request, rows=rows, tasks=tasks, resources=resources)
        progress.advance(rows.num_rows)
    with resources.progress("columns", NUM_CATEGORICAL * rows.num_rows, "values") as progress:
        stage = ColumnStage(shared, request, rows=rows, tasks=tasks, sizes=resources.task_sizes)
        columns = stage.run(progress)
    # Nothing of this journal is on the disk: it only carries the facts of the files to the manifest.
    journal = Journal(shared.root / "work", request.wanted, files=parsed.files, parsed=True)

    def entries_of(names: list[str]) -> list[dict]:
        others = file_entries(tasks, shared.root, [name for name in names if name not in row_entries])
        return [(row_entries | others)[name] for name in names]

    finish(shared.root, request, journal=journal, columns=columns, entries_of=entries_of)
    shared.remove_work()
    return warnings_of(request.inputs, parsed.files, splits)


def _parse(shared: SharedFolder, request: DatasetRequest, *, tasks: Tasks, resources: Resources) -> ParsedInput:
    """Parses the splits that no earlier run has finished, in waves, and joins the facts of all splits in order."""
    paths, sizes, states = request.inputs.files, resources.task_sizes, request.wanted["inputs"]
    # A machine of the cluster has another current folder.
    absolute = [Path(os.path.abspath(path)) if isinstance(path, Path) else path for path in paths]
    splits = plan_splits(absolute, states, split_bytes=sizes.split_bytes)
    parsing = SplitParsing(
        shared.parts,
        request.labelled,
        request.rules.on_bad_row == "skip",
        keep_truncated=request.rules.on_truncated == "keep",
        block_bytes=resources.block_bytes,
        part_rows=sizes.part_rows,
    )
    known = {split.number: outcome for split in splits if (outcome := finished_split(shared.parts, split))}
    if known:
        resources.say(f"resuming {shared.root}: {len(known)} of {len(splits)} parts of the inputs are parsed")
    parsed, wave = ParsedInput(paths), _SPLITS_PER_CORE * tasks.parallelism
    with resources.progress("parse", None, "rows") as progress:
        for start in range(0, len(splits), wave):
            here = splits[start : start + wave]
            new = [split for split in here if split.number not in known]
            outcomes = tasks.run(functools.partial(parse_split, parsing), new)
            known |= {split.number: outcome for split, outcome in zip(new, outcomes, strict=True)}
            before = parsed.num_rows
            for split in here:
                parsed.add(split, known.pop(split.number))
            progress.advance(parsed.num_rows - before)
    return parsed


def _arrange(
    shared: SharedFolder, request: DatasetRequest, *, rows: ParsedRows, tasks: Tasks, resources: Resources
) -> dict[str, dict]:
    """Makes the label file and the numerical file of every split. Returns their entries in the manifest."""
    for split in rows.splits:
        (shared.root / split).mkdir(exist_ok=True)
    if (document := shared.document(ROWS)) is not None:
        return document
    names: list[str] = []
    files: list[list[SplitFile]] = []
    for file_of, row_bytes in ((label_file, 1), (numerical_file, 2 * NUM_NUMERICAL)):
        files.append([])
        for split, range_ in rows.splits.items():
            names.append(file_of(request.layout, split))
            path = shared.scratch / names[-1]
            path.parent.mkdir(exist_ok=True)
            make_file(path, len(range_) * row_bytes)
            files[-1].append(SplitFile(path, range_, rows.order_of(split)))
    work = RowFiles(shared.parts, tuple(files[0]), tuple(files[1]))
    ranges = row_ranges(rows.parts, resources.task_sizes.task_rows)
    if rows.order:
        shuffled = tuple(file.path for each in files for file in each if file.order)
        tasks.exchange(
            functools.partial(arrange_rows, work),
            ranges,
            collect=functools.partial(collect_rows, ShuffledFiles(rows.order, shuffled)),
            num_partitions=len(shuffled) * rows.order.num_buckets,
        )
    else:
        tasks.run(functools.partial(arrange_in_order, work), ranges)
    for name in names:
        os.replace(shared.scratch / name, shared.root / name)
    entries = file_entries(tasks, shared.root, names)
    shared.finish(ROWS, entries)
    return entries


def _check_machines(tasks: Tasks) -> None:
    """Raises ClusterError where a machine does not see the staging folder, or has other versions of the libraries."""
    own = versions_of(VERSIONED)
    for host, versions in tasks.run(_machine, range(_PROBES_PER_CORE * tasks.parallelism)):
        different = [f"{name} {versions[name]}" for name in own if versions[name] != own[name]]
        if different:
            expected = ", ".join(f"{name} {own[name]}" for name in own if versions[name] != own[name])
            raise ClusterError(
                f"{host}: has {', '.join(different)}; this machine has {expected}. The bytes could differ. Install the "
                "same versions on all machines."
            )


def _machine(number: int) -> tuple[str, dict[str, str]]:
    """(name of the machine, its versions)"""
    return socket.gethostname(), versions_of(VERSIONED)
