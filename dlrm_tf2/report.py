"""The program that draws logs of training as one HTML page, which needs no other file.

    python -m dlrm_tf2.report LOG [LOG ...] [-o report.html]

Several logs share each chart. A log may belong to a run that still trains, or that was killed. No TensorFlow.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from criteo_prep.pages.page import BEGINNING
from dlrm_tf2.job.program import run_alone
from dlrm_tf2.logs.training_log import LogError, read_log
from dlrm_tf2.report_page import page
from dlrm_tf2.runtime.staging import StagedPath


def main(arguments: list[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    parser = argparse.ArgumentParser("dlrm-report", description="Draws logs of training as one HTML page.")
    parser.add_argument("logs", nargs="+", metavar="LOG", help="file that --log_path of the trainer named")
    parser.add_argument("-o", "--output", default="report.html", help="file to write (report.html)")
    values = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    return run_alone("dlrm-report", lambda: _write_report(values.logs, values.output))


def _write_report(paths: Sequence[str], output: str) -> None:
    """Draws the logs, and prints a line about each.

    Raises:
      LogError: the output is one of the logs or no page, or a file is not the log of a training.
    """
    if any(Path(output).resolve() == Path(path).resolve() for path in paths):
        raise LogError(f"{output}: is one of the logs. Name another file with -o.")
    if not _is_free(Path(output)):
        raise LogError(f"{output}: exists and is not a page of this program, so it stays. Name another file with -o.")
    logs = [read_log(path, name) for path, name in zip(paths, _names(paths), strict=True)]
    _write(Path(output), page(logs).encode("utf-8", "replace"))
    for log in logs:
        print(f"{log.name}: {', '.join([f'{len(log.records)} records', *log.notes])}")
    print(f"{output}: written")


def _is_free(path: Path) -> bool:
    """Whether a file may be written: it does not exist, is empty or a page of this program, or is a pipe or device."""
    if not path.is_file():
        return True
    with open(path, "rb") as file:
        return file.read(len(BEGINNING)) in (b"", BEGINNING.encode())


def _write(path: Path, content: bytes) -> None:
    """Writes a file, which appears when it is complete. Raises OSError, which names the file."""
    staged = StagedPath(path.resolve(), is_folder=False)
    try:
        if path.exists() and not path.is_file():  # a pipe or a device, which must keep its place
            path.write_bytes(content)
            return
        staged.claim()
        staged.path.write_bytes(content)
        staged.rename()
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        staged.discard()


def _names(paths: Sequence[str]) -> list[str]:
    """The names of the files, or their paths where two files have the same name."""
    names = [Path(path).name for path in paths]
    return names if len(set(names)) == len(names) else list(paths)


if __name__ == "__main__":
    sys.exit(main())
