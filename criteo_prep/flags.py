"""How flags are spelled (snake_case, and hyphens are accepted), and how a command ends."""

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

_BROKEN_PIPE = 141  # as a shell reports a program that ended because its output is no longer read
_INTERRUPTED = 130
_SIGNALLED = 128  # plus the number of the signal, as a shell reports it


class Terminated(KeyboardInterrupt):
    """A signal asked this process to end; its argument is the number of the signal."""


def with_underscores(argv: Sequence[str]) -> list[str]:
    """The arguments with --test-file written as --test_file. Text after a = stays as it is."""
    words = []
    for word in argv:
        flag, equals, value = word.partition("=")
        if flag.startswith("--"):
            flag = "--" + flag[2:].replace("-", "_")
        words.append(flag + equals + value)
    return words


def run_program(
    name: str,
    description: str,
    *,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    run: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None,
) -> int:
    """Runs a whole command: parses its flags, calls `run`, and returns the exit code.

    Args:
      name: name of the command, for messages and help.
      description: text of the help, shown as it is.
      add_arguments: adds the flags to a parser.
      run: takes the parsed flags, and returns the exit code.
      argv: arguments after the name of the command; None for the arguments of this process.
    """
    parser = argparse.ArgumentParser(
        name, description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    arguments = parser.parse_args(with_underscores(sys.argv[1:] if argv is None else argv))
    return exit_code(name, lambda: run(arguments))


def verb_parser(verb: str, description: str) -> argparse.ArgumentParser:
    """A parser of the flags of `criteo-prep VERB`."""
    return argparse.ArgumentParser(f"criteo-prep {verb}", description=description, allow_abbrev=False)


def check_workers(workers: int | None) -> None:
    """Raises ValueError for a number of threads that is not positive."""
    if workers is not None and workers < 1:
        raise ValueError(f"--workers {workers}: must be at least 1.")


def exit_code(name: str, run: Callable[[], int]) -> int:
    """The exit code of a command.

    Returns:
      The result of `run`; 1 after an error, which is printed in one line; 130 after Ctrl-C; 143 after SIGTERM; 141 if
      nobody reads the output.
    """
    try:
        with _signals_as_exceptions():
            code = run()
        sys.stdout.flush()  # finds a closed pipe here, and not while Python exits
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes again while it exits
        return _BROKEN_PIPE
    except (ValueError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except MemoryError as error:
        print(f"{name}: out of memory. {error}".rstrip(), file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        end, code = how_interrupted(error)
        print(f"{name}: {end}; nothing half-written is left", file=sys.stderr)
        return code


def how_interrupted(error: KeyboardInterrupt) -> tuple[str, int]:
    """(in words, as an exit code)"""
    if isinstance(error, Terminated):
        number = error.args[0]
        return f"ended by {signal.Signals(number).name}", _SIGNALLED + number
    return "interrupted", _INTERRUPTED


@contextlib.contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """Turns SIGTERM and SIGHUP into Terminated, so that a command removes its unfinished files as after Ctrl-C."""
    before: dict[int, signal.Handlers] = {}

    def end(number: int, frame: object) -> None:
        for each in before:  # another signal does not stop the removing
            signal.signal(each, signal.SIG_IGN)
        raise Terminated(number)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup, say, ignores SIGHUP
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
