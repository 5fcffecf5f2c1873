"""How flags are spelled: snake_case, and with hyphens just as well."""

from collections.abc import Sequence


def with_underscores(argv: Sequence[str]) -> list[str]:
    """--test-file is --test_file; what stands after a = is left alone."""
    words = []
    for word in argv:
        flag, equals, value = word.partition("=")
        if flag.startswith("--"):
            flag = "--" + flag[2:].replace("-", "_")
        words.append(flag + equals + value)
    return words
