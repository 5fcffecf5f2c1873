"""`python -m dlrm_tf2.export`: a checkpoint in a form that other programs read.

    --format npy          feature_<i>.npy, one whole table per categorical feature, and dense/<name>.npy (npy.py)
    --format published    NVIDIA's folders sparse/ and dense/ (nvidia.py)
    --format saved_model  a TensorFlow SavedModel that answers without this package (saved_model.py)

In each format, export.json lists the files and holds the checkpoint's document. The output appears when it is complete.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from criteo_prep.machine import available_memory_bytes
from dlrm_tf2.checkpoint import open_checkpoint
from dlrm_tf2.checkpoint.manifest import Manifest
from dlrm_tf2.export.npy import write_dense, write_tables
from dlrm_tf2.export.nvidia import write_published_form
from dlrm_tf2.job.program import run_alone
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.runtime import process
from dlrm_tf2.runtime.staging import StagedPath
from dlrm_tf2.sharding.plan import make_plan

# TensorFlow and this program without tables: resident memory of an export of a tiny model.
_PROCESS_BYTES = 700 << 20


class ExportError(ValueError):
    """The output cannot be written."""


def export(checkpoint: str | Path, output: str | Path, form: str = "npy") -> dict:
    """Writes a checkpoint in one of FORMATS.

    Args:
      checkpoint: folder that training saved.
      output: folder to create, absent or empty. It appears when it is complete.
      form: a key of FORMATS.

    Returns:
      The content of export.json.

    Raises:
      CheckpointError: the checkpoint is incomplete or damaged.
      ExportError: the output is not an empty folder, or the model does not fit in memory.
    """
    folder, manifest = open_checkpoint(checkpoint)
    with _new_folder(Path(os.path.realpath(output))) as folder_to_fill:
        contents = {"format": form, **FORMATS[form](folder, manifest, folder_to_fill), "document": manifest.document}
        (folder_to_fill / "export.json").write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
    return contents


def _npy(folder: Path, manifest: Manifest, output: Path) -> dict:
    features = write_tables(folder, manifest, output)
    return {"features": features, "dense": write_dense(folder, manifest, output)}


def _published(folder: Path, manifest: Manifest, output: Path) -> dict:
    shape = _shape_of(folder, manifest)
    if manifest.dynamic_tables:
        names = ", ".join(manifest.dynamic_tables)
        raise ExportError(f"{folder}: no published reader knows raw keys, which {names} have. Use another --format.")
    if shape.interaction == "projection":
        raise ExportError(f"{folder}: no published reader knows the projection interaction. Use another --format.")
    return write_published_form(folder, manifest, shape=shape, output=output)


def _saved_model(folder: Path, manifest: Manifest, output: Path) -> dict:
    shape = _shape_of(folder, manifest)
    needed = make_plan(shape.tables, 1, table_dtype=manifest.table_dtype).bytes_of(0) + _PROCESS_BYTES
    available = available_memory_bytes()
    if needed > available:
        raise ExportError(
            f"{folder}: a SavedModel is written from memory. This model needs {needed} bytes ({needed / 2**30:.2f} "
            f"GiB), and {available} bytes ({available / 2**30:.2f} GiB) are available. Use a larger machine, or "
            "--format npy."
        )
    process.set_up_process(process.Launch(), cpu=True, amp=False)  # before TensorFlow is imported
    from dlrm_tf2.export.saved_model import write_saved_model

    return {"inputs": write_saved_model(folder, manifest, shape=shape, output=output)}


# Format -> function that writes a checkpoint into an empty folder, and returns its entries of export.json.
FORMATS = {"npy": _npy, "published": _published, "saved_model": _saved_model}


def _shape_of(folder: Path, manifest: Manifest) -> ModelConfig:
    if "model" not in manifest.document:
        raise ExportError(f"{folder}: does not say the shape of its model. Only --format npy works without the shape.")
    try:
        shape = _with_rows(ModelConfig.from_document(manifest.document["model"]), manifest)
        tables = [(table.name, table.num_rows, table.embedding_dim) for table in shape.tables]
        is_shape = (
            min(*shape.bottom_mlp_dims, *shape.top_mlp_dims, 1) > 0 <= min(shape.num_numerical, shape.num_cross_layers)
        )
        is_shape &= bool(shape.top_mlp_dims) and bool(shape.num_numerical) == bool(shape.bottom_mlp_dims)
    except (ValueError, TypeError, AttributeError, IndexError, KeyError):
        is_shape = False
    rows = _rows_of(manifest)
    if not is_shape or tables != [(table.name, rows[table.name], table.embedding_dim) for table in manifest.tables]:
        raise ExportError(
            f"{folder}: model in its document is not the shape of a model with these tables. Export another "
            "checkpoint, or use --format npy."
        )
    return shape


def _rows_of(manifest: Manifest) -> dict[str, int]:
    """Table -> rows of a model that serves it: of a dynamic table a row for each key, and one for all other keys."""
    dynamic = manifest.dynamic_tables
    return {
        one.name: manifest.num_keys(one.name) + 1 if one.name in dynamic else one.num_rows for one in manifest.tables
    }


def _with_rows(shape: ModelConfig, manifest: Manifest) -> ModelConfig:
    """The shape with the rows of its dynamic tables in place of cardinalities."""
    rows, dynamic = _rows_of(manifest), manifest.dynamic_tables
    pairs = zip(shape.features, shape.cardinalities, strict=True)
    return dataclasses.replace(
        shape, cardinalities=tuple(rows[name] if name in dynamic else number for name, number in pairs)
    )


@contextlib.contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder next to `path`. A clean exit renames it to `path`, and an exception deletes it."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ExportError(f"{path}: is not an empty folder. Name another --output.")
    if os.path.ismount(path):
        raise ExportError(f"{path}: is a mount point, which cannot be replaced. Name a folder inside it.")
    staged = StagedPath(path, is_folder=True)
    staged.claim()
    try:
        yield staged.path
        staged.rename()
    except BaseException as error:
        staged.discard()
        if isinstance(error, OSError) and error.strerror and not error.filename:
            error.filename = str(path)  # which the message names
        raise


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m dlrm_tf2.export",
        description="Writes a checkpoint in a form that other programs read.",
        allow_abbrev=False,
    )
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="folder that training saved")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to create, absent or empty")
    parser.add_argument(
        "--format",
        choices=tuple(FORMATS),
        default="npy",
        help="plain .npy files (the default), NVIDIA's folders, or a TensorFlow SavedModel",
    )
    arguments = parser.parse_args(argv)
    return run_alone("export", lambda: _export_and_report(arguments))


def _export_and_report(arguments: argparse.Namespace) -> None:
    contents = export(arguments.checkpoint, arguments.output, arguments.format)
    for entry in contents.get("features", ()):
        print(f"{entry['file']}: {entry['feature']}, {entry['rows']} x {entry['embedding_dim']}")
    for note in contents.get("notes", ()):
        print(f"note: {note}")
    if "features" in contents:
        print(f"{arguments.output}: {len(contents['features'])} tables, {len(contents['dense'])} dense variables")
    else:
        print(f"{arguments.output}: a SavedModel with the inputs {', '.join(contents['inputs'])}")


if __name__ == "__main__":
    sys.exit(main())
