"""Sizes in bytes, as a person reads them."""


def shown_bytes(size: int) -> str:
    """A size in the largest unit of which it has at least one: "512 bytes", "3.21 kB", "4.50 MB", "1.10 TB"."""
    for exponent, unit in ((12, "TB"), (9, "GB"), (6, "MB"), (3, "kB")):
        if size >= 10**exponent:
            return f"{size / 10**exponent:.2f} {unit}"
    return f"{size} bytes"
