"""Values in the document of a schema: numbers, names, times; each has the right type, or its place is in an error."""

import math
import re
from datetime import UTC, date, datetime

from criteo_prep.messages import one_line, shown


class SchemaError(ValueError):
    """A schema is wrong, or a log does not fit its schema. The message is one line."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


class DocumentValues:
    """Checked values of a document.

    Args:
      where: beginning of each message.
    """

    def __init__(self, where: str):
        self.where = where

    def time(self, value: object) -> object:
        """A time without a zone (UTC), whole days included, where the value is a time; else the value."""
        if isinstance(value, datetime):
            return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
        if isinstance(value, date):
            return datetime(value.year, value.month, value.day)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self.number(value, "split: the time") if isinstance(value, float) else value
        return self.time(plain_time(value)) if isinstance(value, str) else value

    def count(self, entry: dict, where: str, *, key: str, least: int) -> int | None:
        value = entry.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**31:
            raise self.error(f"{where}: {key} is {shown(value)}; it must be a whole number of at least {least}.")
        return value

    def number(self, value: object, where: str) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.error(f"{where} is {shown(value)}; it must be a number.")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self.error(f"{where} is {shown(value)}; it must be a finite number.")
        return number

    def name(self, entry: dict, where: str, key: str) -> str:
        if not isinstance(entry.get(key), str) or not entry[key]:
            raise self.error(f"{where}: {key} is {shown(entry.get(key))}; it must be text. Write it in quotes.")
        return entry[key]

    def value(self, value: object, where: str) -> str:
        """A value of the data as text: true and false as in JSON, a number as it is written shortest."""
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, date):
            return value.isoformat()
        if not isinstance(value, str | int | float) or value == "":
            raise self.error(f"{where} is {shown(value)}; it must be text, a number, true or false.")
        try:
            return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
        except ValueError:  # Python refuses to print an integer of more than 4300 digits
            raise self.error(f"{where} is {shown(value)}; it must be shorter.") from None

    def values(self, value: object, where: str) -> tuple[str, ...]:
        value = [] if value is None else value
        if not isinstance(value, list):
            raise self.error(f"{where} is {shown(value)}; it must be a list, such as [23].")
        return tuple(self.value(each, where) for each in value)

    def mapping(self, value: object, where: str, keys: tuple[str, ...] | None = None) -> None:
        if not isinstance(value, dict):
            raise self.error(f"{where} is {shown(value)}; it must be a mapping such as {{key: value}}.")
        for key in value:
            if keys is not None and key not in keys:
                raise self.error(f"{where}: unknown key {shown(key)}; the keys are {', '.join(keys)}.")

    def error(self, message: str) -> SchemaError:
        return SchemaError(f"{self.where}: {message}")


def plain_time(text: str) -> datetime | int | float | None:
    """A time that is written as text: a number, or a time as in ISO 8601; None for other text."""
    if re.fullmatch(r"-?\d{1,18}", text):
        return int(text)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
