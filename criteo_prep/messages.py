"""Values and texts in messages: always one line, and never long, whatever a user's file holds."""

import reprlib

_values = reprlib.Repr()
_values.maxlevel, _values.maxstring, _values.maxother = 2, 80, 80


def shown(value: object) -> str:
    """The repr of a value from a user's document, cut to about 100 characters; the rest of the value is not visited."""
    try:
        return _values.repr(value)
    except ValueError:  # Python refuses to print an integer of more than 4300 digits
        return "a number of very many digits"


def one_line(text: str, limit: int = 600) -> str:
    """The text on one line, without characters that control a terminal; a long text loses its middle."""
    if len(text) > limit:
        text = f"{text[: limit * 2 // 3]} ... {text[-(limit // 3) :]}"
    return "".join(character if character.isprintable() else " " for character in text)
