"""Fault runs of `criteo-prep preprocess`: kill -9 at random moments, a full disk, a truncated gzip, a vanished file.

    python bench/faults_preprocess.py [--kills 24] [--rows 400000] [--seed 0]

Every kill strikes at a random moment of the time that an undisturbed run takes. Then the same command runs again,
killed again half of the times, until one run ends; every file must equal the file of the undisturbed run. The same is
done over a finished dataset with a higher threshold, which must stay whole until the new dataset takes its place. The
full disk is a tmpfs in a new mount namespace (unshare); it is left out where namespaces are not allowed.
"""

import argparse
import filecmp
import gzip
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_SHELL_ON_A_SMALL_DISK = """
set -e
mount -t tmpfs -o size={size} tmpfs {disk}
set +e
{first} ; echo "exit $?"
ls -A {disk}
mount -o remount,size=2G {disk}
{second} ; echo "exit $?"
cp -r {disk}/set {result}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--kills", type=int, default=24, help="kill points (24)")
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="where the temporary files go")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="faults_preprocess_", dir=arguments.folder))
    try:
        days = make_days(folder, arguments.rows)
        good, seconds = folder / "good", None
        start = time.perf_counter()
        assert run(days, good).returncode == 0
        seconds = time.perf_counter() - start
        old = folder / "old"
        assert run(days, old, threshold=5).returncode == 0
        ways = (([], None), (["--shuffle", "global"], None), ([], old))
        results = [kills(days, good, folder, arguments, seconds, *way) for way in ways]
        results += [full_disk(days, good, folder), truncated(days, good, folder), vanished(days, good, folder)]
    finally:
        shutil.rmtree(folder)
    for what, tried, survived in results:
        print(f"{what:58} tried {tried:3}  same bytes {survived:3}")
    sys.exit(any(tried != survived for _, tried, survived in results))


def command(days: list[Path], output: Path, more: list[str] = (), threshold: int = 3) -> list[str]:
    return [
        sys.executable,
        "-m",
        "criteo_prep",
        "preprocess",
        "--input",
        *map(str, days),
        "--output",
        str(output),
        "--threshold",
        str(threshold),
        "--quiet",
        *more,
    ]


def run(days: list[Path], output: Path, more: list[str] = (), threshold: int = 3) -> subprocess.CompletedProcess:
    return subprocess.run(command(days, output, more, threshold), cwd=ROOT, capture_output=True, text=True)


def make_days(folder: Path, rows: int) -> list[Path]:
    """Three days, one of them gzip."""
    subprocess.run(
        [
            sys.executable,
            "-m",
            "criteo_prep",
            "synthesize",
            "--preset",
            "criteo_t15_synthetic",
            "--layout",
            "criteo_tsv",
            "--num_samples",
            str(rows),
            "--num_days",
            "3",
            "--quiet",
            "--dst",
            str(folder / "days"),
        ],
        check=True,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    packed = folder / "days" / "day_1.gz"
    packed.write_bytes(gzip.compress((folder / "days" / "day_1").read_bytes(), 1))
    return [folder / "days" / "day_0", packed, folder / "days" / "day_2"]


def kills(days, good, folder, arguments, seconds, more, old) -> tuple[str, int, int]:
    """kill -9 of the whole process group at random moments; the same command then runs until it finishes.

    Args:
      old: a finished dataset that is at the destination before the run; None for an empty destination.
    """
    source = random.Random(arguments.seed)
    reference, survived, num_kills = good, 0, 0
    if more:
        reference = folder / "good_other"
        assert run(days, reference, more).returncode == 0
    for _ in range(arguments.kills):
        output = folder / "killed"
        shutil.rmtree(output, ignore_errors=True)
        if old:
            shutil.copytree(old, output)
        at_once = True
        while True:
            process = subprocess.Popen(
                command(days, output, more),
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                process.wait(source.uniform(0, seconds) if at_once or source.random() < 0.5 else None)
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()
                num_kills, at_once = num_kills + 1, False
                if output.exists() or (old and not (folder / ".killed.old").exists()):
                    wholes = [reference, *([old] if old else [])]
                    assert any(same(whole, output) for whole in wholes), "half a dataset in its place"
        survived += process.returncode == 0 and same(reference, output)
    over = ", over a finished dataset" if old else ""
    what = f"kill -9, {num_kills} times{' ' + ' '.join(more) if more else ''}{over}"
    return what, arguments.kills, survived


def full_disk(days, good, folder) -> tuple[str, int, int]:
    """Disks that are full at several moments: an error, no dataset, and with more room the run resumes."""
    tried = survived = 0
    needed = sum(path.stat().st_size for path in good.rglob("*") if path.is_file())
    for part in (0.3, 0.8, 1.2, 1.4, 1.6, 1.7):
        disk, result = folder / "disk", folder / "result"
        disk.mkdir(exist_ok=True)
        shutil.rmtree(result, ignore_errors=True)
        # Without the disk check of the preflight, which would refuse a disk this small.
        text = " ".join(command(days, disk / "set"))
        blind = f"{sys.executable} {Path(__file__).resolve()} --blind {' '.join(map(str, [disk / 'set', *days]))}"
        script = _SHELL_ON_A_SMALL_DISK.format(
            size=int(part * needed), disk=disk, first=blind, second=text, result=result
        )
        done = subprocess.run(["unshare", "-m", "-r", "bash", "-c", script], cwd=ROOT, capture_output=True, text=True)
        if "exit" not in done.stdout:
            print("full disk left out: no mount namespace here:", done.stderr.strip()[-200:])
            return "full disk (left out)", 0, 0
        if "exit 1" not in done.stdout:
            continue  # the disk was large enough
        tried += 1
        clear = "No space left on device" in done.stderr and "\nset\n" not in done.stdout
        survived += clear and same(good, result)
    return "full disk (tmpfs), resumed with more room", tried, survived


def blind(output: str, days: list[str]) -> None:
    """`preprocess` with a preflight that believes in an endless disk."""
    sys.path.insert(0, str(ROOT))
    from criteo_prep import cli
    from criteo_prep.preprocess import preflight

    preflight.shutil = type("Blind", (), {"disk_usage": staticmethod(lambda _: type("Free", (), {"free": 1 << 50}))})
    sys.exit(cli.main(["preprocess", "--input", *days, "--output", output, "--threshold", "3", "--quiet"]))


def truncated(days, good, folder) -> tuple[str, int, int]:
    """A gzip that ends early: an error that names the file; with the whole file in its place the run resumes."""
    output, whole = folder / "truncated", days[1].read_bytes()
    status = days[1].stat()
    survived = 0
    for part in (0.1, 0.5, 0.9):
        shutil.rmtree(output, ignore_errors=True)
        days[1].write_bytes(whole[: int(part * len(whole))])
        failed = run(days, output)
        named = failed.returncode == 1 and "day_1.gz: the gzip stream ends early" in failed.stderr
        nothing = not output.exists()
        days[1].write_bytes(whole)
        os.utime(days[1], ns=(status.st_atime_ns, status.st_mtime_ns))
        survived += named and nothing and run(days, output).returncode == 0 and same(good, output)
    return "truncated gzip, resumed after it was replaced", 3, survived


def vanished(days, good, folder) -> tuple[str, int, int]:
    """The last day goes away while the first is parsed."""
    output, away = folder / "vanished", folder / "away"
    process = subprocess.Popen(
        command(days, output), cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    while not (folder / ".vanished.partial" / "work").exists():
        time.sleep(0.005)
    days[2].rename(away)
    error = process.communicate()[1]
    days_missing = process.returncode == 1 and "day_2" in error and not output.exists()
    away.rename(days[2])
    done = days_missing and run(days, output).returncode == 0 and same(good, output)
    return "an input file vanishes in the middle", 1, int(done)


def same(one: Path, other: Path) -> bool:
    """Whether two folders hold the same files with the same bytes."""
    files = sorted(str(path.relative_to(one)) for path in one.rglob("*") if path.is_file())
    there = sorted(str(path.relative_to(other)) for path in other.rglob("*") if path.is_file())
    return files == there and all(filecmp.cmp(one / file, other / file, shallow=False) for file in files)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--blind"]:
        blind(sys.argv[2], sys.argv[3:])
    else:
        main()
