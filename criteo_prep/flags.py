"""How flags are spelled, snake_case and with hyphens just as well, and how a command ends."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

_BROKEN_PIPE = 141  # what a shell sees of a program that ended because nobody reads its output any more
_INTERRUPTED = 130


def with_underscores(argv: Sequence[str]) -> list[str]:
    """--test-file is --test_file; what stands after a = is left alone."""
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
    """A whole command: flags in, `run`, an exit code.

    Args:
      name: how the command is called, for messages and help.
      description: for its help, shown as it is.
      add_arguments: says which flags there are.
      run: is given them, and returns the exit code.
      argv: the words after the name; those of this process by default.
    """
    parser = argparse.ArgumentParser(
        name, description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    arguments = parser.parse_args(with_underscores(sys.argv[1:] if argv is None else argv))
    return exit_code(name, lambda: run(arguments))


def exit_code(name: str, run: Callable[[], int]) -> int:
    """What `run` returns, or 1 for an error, which a line explains, 130 interrupted, 141 if nobody reads its output."""
    try:
        code = run()
        sys.stdout.flush()  # a pipe that is closed is found here and not as Python exits
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes again as it exits
        return _BROKEN_PIPE
    except (ValueError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except MemoryError as error:
        print(f"{name}: out of memory. {error}".rstrip(), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted; nothing half-written is left", file=sys.stderr)
        return _INTERRUPTED
