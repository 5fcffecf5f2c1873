"""Lines for people, on the terminal. A line that cannot be printed ends no work: nobody may be left to read it."""

import os
import sys


def open_standard_streams() -> None:
    """Opens /dev/null for standard input, output and error where they are closed.

    Otherwise the next file that the process opens gets their number, and a library's message ends up in it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def say(line: str, end: str = "\n") -> None:
    """Prints a line on standard output. After the first failure it warns, and prints no more."""
    try:
        print(line, end=end, flush=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        _silence("stdout")
        warn(f"standard output: cannot be written: {reason}. The run continues without it.")


def warn(line: str) -> None:
    """Prints a line on standard error, if it can be written."""
    try:
        print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        _silence("stderr")


def is_terminal() -> bool:
    """Whether standard output is a terminal."""
    try:
        return sys.stdout is not None and sys.stdout.isatty()
    except ValueError:  # it is closed
        return False


def _silence(name: str) -> None:
    """Sends a stream of `sys` to /dev/null, its buffer included, so that Python can flush it when the process exits."""
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, getattr(sys, name).fileno())
    except (OSError, ValueError):  # the stream is closed, or has no file
        setattr(sys, name, open(os.devnull, "w"))
    finally:
        os.close(null)
