"""`criteo-prep synthesize`: a preset as a dataset on disk: tf_raw for training, or day files for preprocess."""

from dataclasses import dataclass
from pathlib import Path

from criteo_prep.destination import new_dataset
from criteo_prep.feature_spec import tf_raw_spec
from criteo_prep.guard import check_space
from criteo_prep.manifest import file_entry, save_manifest, versions_of
from criteo_prep.parallel import in_order
from criteo_prep.progress import Progress
from criteo_prep.synthetic.criteo_tsv import MEAN_ROW_BYTES, DayWriter
from criteo_prep.synthetic.generator import Reader, write_samples
from criteo_prep.synthetic.keys import KEY_RULE, KeyWriter, with_key
from criteo_prep.synthetic.labels import KINDS, Labels
from criteo_prep.synthetic.presets import Preset, preset, scaled
from criteo_prep.synthetic.teacher import BASE_RATE, SIGNAL
from criteo_prep.transcribe import tf_raw
from criteo_prep.transcribe.run import sample_bytes

SPEC = "feature_spec.yaml"


class SynthesizeError(ValueError):
    """The request cannot be carried out."""


@dataclass(frozen=True)
class Synthesis:
    """What to synthesize.

    Attributes:
      preset: name in criteo_prep.synthetic.presets.PRESETS.
      num_samples: number of training rows.
      num_test_samples: number of test rows; None for a tenth of num_samples, and at least one.
      scale: factor of the cardinalities.
      seed: seed of the dataset. The same seed makes the same bytes for any number of workers.
      labels: "random" for fair coins, or "teacher" for the planted click model.
      base_rate: mean click probability of the teacher; None for BASE_RATE.
      signal: standard deviation of the teacher's logit; None for SIGNAL.
      layout: name in LAYOUTS.
      ids: "vocabulary", or "raw" for a key in place of each id; criteo_tsv has no ids.
      num_days: number of day files of criteo_tsv, whose last file has the test rows; None for 2. tf_raw has no days.
      workers: threads; None for one thread per core.
    """

    preset: str
    num_samples: int
    num_test_samples: int | None = None
    scale: float = 1.0
    seed: int = 0
    labels: str = "random"
    base_rate: float | None = None
    signal: float | None = None
    layout: str = "tf_raw"
    ids: str = "vocabulary"
    num_days: int | None = None
    workers: int | None = None

    @property
    def test_rows(self) -> int:
        return max(1, self.num_samples // 10) if self.num_test_samples is None else self.num_test_samples

    @property
    def teacher(self) -> dict:
        """The teacher's arguments, defaults included; empty for random labels."""
        if self.labels != "teacher":
            return {}
        return {
            "base_rate": BASE_RATE if self.base_rate is None else self.base_rate,
            "signal": SIGNAL if self.signal is None else self.signal,
        }

    def rules(self) -> dict:
        """The manifest's "rules": the choices that decide the bytes."""
        rules = {"preset": self.preset, "scale": self.scale, "seed": self.seed, "labels": self.labels, **self.teacher}
        keys = {"ids": KEY_RULE} if self.ids == "raw" else {}
        return {**rules, "layout": self.layout, **keys, **({"num_days": self.num_days} if self.num_days else {})}


def synthesize(request: Synthesis, dst: str | Path, *, overwrite: bool = False, quiet: bool = False) -> dict:
    """Makes the dataset folder `dst` with a manifest; the folder appears whole or not at all.

    Returns:
      The manifest's "splits".

    Raises:
      ValueError: the request cannot be carried out, or the destination cannot be written.
    """
    _check(request)
    shape = scaled(preset(request.preset), request.scale)
    with new_dataset(dst, overwrite=overwrite) as folder:
        made = LAYOUTS[request.layout](request, shape, folder=folder, quiet=quiet)
        document = {
            "made_by": "criteo-prep synthesize",
            "versions": versions_of(("numba", "numpy")),
            "inputs": [],
            "rules": request.rules(),
            **made,
        }
        save_manifest(folder, document)
    return document["splits"]


def _tf_raw(request: Synthesis, shape: Preset, *, folder: Path, quiet: bool) -> dict:
    rows = {"train": request.num_samples, "test": request.test_rows}
    drawn = tf_raw_spec(shape.categorical, splits=rows)
    spec = tf_raw_spec(map(with_key, shape.categorical), splits=rows) if request.ids == "raw" else drawn
    check_space(folder, sum(rows.values()) * sample_bytes(spec))
    splits = {}
    for split, num_samples in rows.items():
        with (
            Progress(f"synthesize {split}", num_samples, unit="samples", quiet=quiet) as progress,
            tf_raw.Writer(folder, spec, split) as writer,
        ):
            reader = Reader(drawn, split, num_samples=num_samples, seed=request.seed, labels=_labels(request))
            into = KeyWriter(writer) if request.ids == "raw" else writer
            truth = write_samples(reader, into, workers=request.workers, advance=progress.advance)
        splits[split] = truth.document()
    spec.save(folder / SPEC)
    files = [SPEC, *(chunk.files[0] for chunks in spec.sources.values() for chunk in chunks)]
    entries = in_order(lambda file: file_entry(folder / file), files, workers=request.workers)
    return {"splits": splits, "files": dict(zip(files, entries, strict=True))}


def _criteo_tsv(request: Synthesis, shape: Preset, *, folder: Path, quiet: bool) -> dict:
    rows = request.num_samples + request.test_rows
    check_space(folder, rows * MEAN_ROW_BYTES)
    days = DayWriter(shape.categorical, request.seed, labels=_labels(request))
    with Progress("synthesize days", rows, unit="rows", quiet=quiet) as progress:
        num_days = request.num_days or 2
        return days.write(
            folder,
            request.num_samples,
            num_test=request.test_rows,
            num_days=num_days,
            workers=request.workers,
            advance=progress.advance,
        )


LAYOUTS = {"tf_raw": _tf_raw, "criteo_tsv": _criteo_tsv}
IDS = ("vocabulary", "raw")


def _labels(request: Synthesis) -> Labels:
    return Labels(request.labels, **request.teacher)


def _check(request: Synthesis) -> None:
    if request.layout not in LAYOUTS:
        raise SynthesizeError(f"--layout {request.layout}: must be {' or '.join(LAYOUTS)}.")
    if request.labels not in KINDS:
        raise SynthesizeError(f"--labels {request.labels}: must be {' or '.join(KINDS)}.")
    if request.ids not in IDS:
        raise SynthesizeError(f"--ids {request.ids}: must be {' or '.join(IDS)}.")
    if request.ids == "raw" and request.layout == "criteo_tsv":
        raise SynthesizeError(
            "--ids raw: criteo_tsv has values, of which preprocess --ids raw makes the same keys. Leave --ids out."
        )
    for flag, rows in (("num_samples", request.num_samples), ("num_test_samples", request.test_rows)):
        if rows < 1:
            raise SynthesizeError(f"--{flag} {rows}: must be at least 1.")
    if request.num_days is not None and request.layout != "criteo_tsv":
        raise SynthesizeError(
            "--num_days: only criteo_tsv has day files. Add --layout criteo_tsv, or leave --num_days out."
        )
    for flag in ("base_rate", "signal"):
        if request.labels != "teacher" and getattr(request, flag) is not None:
            raise SynthesizeError(f"--{flag}: belongs to the teacher. Add --labels teacher, or leave --{flag} out.")
