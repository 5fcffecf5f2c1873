"""Killed runs and power cuts, as far as a process can simulate them.

From a chosen system call on, nothing works. After a power cut, bytes that were not forced to the disk are lost too.
(test_faults.py kills real processes.)
"""

import os
import random
import shutil

import pytest
from support.log_samples import content, make, random_rows, write_rows

from criteo_prep.preprocess import arrange, journal
from criteo_prep.preprocess.columns import encoder
from criteo_prep.preprocess.parse import parse_files, raw_columns, row_writer
from criteo_prep.preprocess.run import DifferentDatasetError

CALLS = ("rename", "replace", "truncate", "unlink", "rmdir", "mkdir", "pwrite", "link", "fsync")


class Killed(BaseException):
    """Nothing works from here on."""


class Machine:
    """Counts the calls that change a disk, and stops at one of them; knows what was forced to the disk."""

    def __init__(self, monkeypatch):
        self.left, self.forced = 1 << 30, {}
        for name in CALLS:
            monkeypatch.setattr(os, name, self._counted(getattr(os, name)))
        append = self._counted(raw_columns.append)
        for module in (raw_columns, encoder, arrange):
            monkeypatch.setattr(module, "append", append)
        monkeypatch.setattr(journal, "boot_id", lambda: str(self.boot))
        self.boot = 0

    def _counted(self, original):
        def call(*arguments, **more):
            self.left -= 1
            if self.left < 0:
                raise Killed
            if original is self._fsync:
                status = os.fstat(arguments[0])
                self.forced[status.st_ino] = status.st_size
            return original(*arguments, **more)

        return call

    _fsync = os.fsync

    def killed(self, calls, run):
        """Whether `run` did not end within so many calls."""
        self.left = calls
        try:
            run()
        except Killed:
            return True
        finally:
            self.left = 1 << 30
        return False

    def lose_power(self, folder, source):
        """Loses the bytes that were not forced, in one of the ways in which file systems lose them."""
        self.boot += 1
        for path in (path for path in folder.rglob("*") if path.is_file()):
            status = path.stat()
            safe = min(self.forced.get(status.st_ino, 0), status.st_size)
            with open(path, "r+b") as file:
                file.truncate(safe)
                file.truncate(source.choice([safe, status.st_size]))


def calls_of(machine, run):
    machine.killed(1 << 29, lambda: (run(), setattr(machine, "used", (1 << 29) - machine.left)))
    return machine.used


@pytest.mark.parametrize(
    "shuffle, force_bytes",
    [("none", 0), ("global", 1 << 40), *(pytest.param(*more, marks=pytest.mark.long) for more in
                                         (("none", 1 << 40), ("global", 0)))],
)  # fmt: skip
def test_a_power_cut_at_any_moment(tmp_path, monkeypatch, shuffle, force_bytes):
    source = random.Random(f"{shuffle}{force_bytes}")
    (tmp_path / "out").mkdir()
    days = [write_rows(tmp_path / f"day_{day}", random_rows(day, 30)) for day in range(2)]
    output, more = tmp_path / "out" / "set", {"shuffle": shuffle, "block_bytes": 2000, "checkpoint_bytes": 0}
    make(days, tmp_path / "good", 2, **more)
    monkeypatch.setattr(row_writer, "FORCE_BYTES", force_bytes)
    machine = Machine(monkeypatch)
    used = calls_of(machine, lambda: make(days, tmp_path / "counted", 2, **more))
    for calls in [used - 1, used - 3, *source.sample(range(used), 2)]:
        assert machine.killed(calls, lambda: make(days, output, 2, **more))
        machine.lose_power(tmp_path / "out", source)
        make(days, output, 2, **more)
        assert content(output) == content(tmp_path / "good"), calls
        machine.lose_power(tmp_path / "out", source)
        assert content(output) == content(tmp_path / "good"), "what is finished is on the disk"
        assert os.listdir(tmp_path / "out") == ["set"]
        shutil.rmtree(output)


def test_a_large_run_does_not_parse_again_after_a_power_cut(tmp_path, monkeypatch):
    days = [write_rows(tmp_path / f"day_{day}", random_rows(day, 30)) for day in range(2)]
    make(days, tmp_path / "good", 2)
    monkeypatch.setattr(row_writer, "FORCE_BYTES", 0)
    machine = Machine(monkeypatch)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        original = encoder.ColumnEncoder._do_column
        patch.setattr(
            encoder.ColumnEncoder,
            "_do_column",
            lambda *a: original(*a) if a[1] < 5 else (_ for _ in ()).throw(KeyboardInterrupt),
        )
        make(days, tmp_path / "set", 2, workers=1)
    machine.lose_power(tmp_path / ".set.partial", random.Random(0))
    monkeypatch.setattr(parse_files, "text_blocks", None)
    make(days, tmp_path / "set", 2)
    assert content(tmp_path / "set") == content(tmp_path / "good")


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 30))])
def test_any_commands_one_after_the_other_with_kills_and_power_cuts(tmp_path, monkeypatch, seed):
    """A command that ends leaves the same dataset as in an empty place; a killed command leaves the old dataset."""
    source = random.Random(seed)
    days = [write_rows(tmp_path / f"day_{day}", random_rows(day, 15)) for day in range(3)]
    (tmp_path / "out").mkdir()
    output, fresh = tmp_path / "out" / "set", {}
    machine = Machine(monkeypatch)
    monkeypatch.setattr(row_writer, "FORCE_BYTES", source.choice([0, 1 << 40]))

    def run(folder, order, overwrite=False):
        paths, threshold, more = order
        made = make(paths, folder, threshold, overwrite=overwrite, block_bytes=2000, checkpoint_bytes=0, **dict(more))
        return "raw/cat_0.raw" in made.manifest["files"]

    def expected(order, keep_raw):
        key = str((order, keep_raw))
        if key not in fresh:
            folder = tmp_path / f"fresh{len(fresh)}"
            run(folder, (order[0], order[1], {**order[2], "keep_raw": keep_raw}))
            fresh[key] = content(folder)
        return fresh[key]

    before, done = {}, 0
    while done < 2:
        more = {"keep_raw": True} if source.random() < 0.4 else {}
        if source.random() < 0.5:
            more |= source.choice([{"max_cardinality": 4}, {"vocabulary_days": "train"}, {"shuffle": "global"}])
        order = (days if source.random() < 0.7 else days[:2], source.choice([1, 2, "4,cat_1:2"]), more)
        overwrite, raw = source.random() < 0.3, []
        try:
            killed = source.random() < 0.6 and machine.killed(
                source.randrange(500), lambda order=order, overwrite=overwrite: run(output, order, overwrite)
            )
            if killed and source.random() < 0.3:
                machine.lose_power(tmp_path / "out", source)
            raw.append(None if killed else run(output, order, overwrite))
        except DifferentDatasetError:
            assert not overwrite and content(output) == before
            continue
        after = content(output) if output.exists() else {}
        if killed:
            if after not in (before, {}):
                assert after in [expected(order, keep_raw) for keep_raw in (False, True)]
            assert after or not before or (tmp_path / "out" / ".set.old").exists()
        else:
            assert after == expected(order, raw[0])
            done += 1
        before = after or before
