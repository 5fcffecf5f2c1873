"""The rules that a user decides: how rows become samples; and how thresholds and caps per column are written."""

import re
from dataclasses import dataclass

from criteo_prep.feature_spec import minimal_dtype
from criteo_prep.preprocess.columns.keys import KEY_RULE
from criteo_prep.preprocess.columns.vocabulary import CAP_RULE, ID_RULE, VocabularyError
from criteo_prep.schema import CATEGORICAL, NUM_CATEGORICAL, NUM_NUMERICAL, NUMERICAL_RULE

ON_BAD_ROW = ("error", "skip")
ON_TRUNCATED = ("error", "keep")
VOCABULARY_DAYS = ("all", "train")
SHUFFLES = ("none", "global")
IDS = ("vocabulary", "raw")
# Published tools number the columns of the file, so 14 is cat_0.
_FIRST_PUBLISHED, _LAST_PUBLISHED = 1 + NUM_NUMERICAL, NUM_NUMERICAL + NUM_CATEGORICAL


@dataclass(frozen=True)
class Rules:
    """How rows become samples.

    Attributes:
      thresholds: for each categorical column, the least count of a value with an id; rarer values have id 0. Empty
        with raw ids.
      caps: for each categorical column, the largest cardinality, or None; see vocabulary.CAP_RULE.
      vocabulary_days: "all", or "train" to count the values of the train rows only.
      on_bad_row: "error", or "skip" to leave bad rows out and count them.
      on_truncated: "error", or "keep" to use the whole rows of a compressed file that ends early.
      shuffle: "none", or "global" for the train rows in a random order.
      seed: seed of the random order.
      ids: "vocabulary", or "raw" for keys: the values themselves in place of ids.
    """

    thresholds: tuple[int, ...]
    caps: tuple[int | None, ...] = (None,) * NUM_CATEGORICAL
    vocabulary_days: str = "all"
    on_bad_row: str = "error"
    on_truncated: str = "error"
    shuffle: str = "none"
    seed: int = 0
    ids: str = "vocabulary"

    @property
    def keys(self) -> bool:
        return self.ids == "raw"

    def document(self) -> dict:
        """The rules as the manifest has them; rules with their default values are left out."""
        caps = {} if not any(self.caps) else {"max_cardinality": format_per_column(self.caps), "cap": CAP_RULE}
        vocabulary = {"threshold": format_per_column(self.thresholds), **caps, "vocabulary_days": self.vocabulary_days}
        truncated = {} if self.on_truncated == "error" else {"on_truncated": self.on_truncated}
        shuffle = {} if self.shuffle == "none" else {"shuffle": self.shuffle, "seed": self.seed}
        return {
            **({} if self.keys else vocabulary),
            "on_bad_row": self.on_bad_row,
            **truncated,
            **shuffle,
            "ids": KEY_RULE if self.keys else ID_RULE,
            "numerical": NUMERICAL_RULE,
        }


def make_rules(
    threshold: int | str | None,
    max_cardinality: int | str | None = None,
    *,
    vocabulary_days: str | None = None,
    on_bad_row: str = "error",
    on_truncated: str = "error",
    shuffle: str = "none",
    seed: int = 0,
    ids: str = "vocabulary",
) -> Rules:
    """The rules for the values of the flags. Raises VocabularyError for a value that is not valid.

    With raw ids, the flags of vocabularies (threshold, max_cardinality, vocabulary_days) are None.
    """
    assert vocabulary_days in (None, *VOCABULARY_DAYS) and shuffle in SHUFFLES and ids in IDS
    assert on_bad_row in ON_BAD_ROW and on_truncated in ON_TRUNCATED
    of_vocabularies = {
        "threshold": threshold,
        "max_cardinality": max_cardinality,
        "vocabulary_days": vocabulary_days,
    }
    for flag, given in of_vocabularies.items():
        if ids == "raw" and given is not None:
            raise VocabularyError(
                f"--{flag} {given}: is for vocabularies, and --ids raw makes none. Leave out one of the two flags."
            )
    thresholds = per_column("threshold", threshold) if ids == "vocabulary" else ()
    caps = per_column("max_cardinality", max_cardinality)
    if any(each is None for each in thresholds):
        raise VocabularyError(
            f"--threshold {threshold}: gives no threshold for all columns. Begin with one, such as 15,cat_0:3."
        )
    if negative := [each for each in thresholds if each < 0]:
        raise VocabularyError(f"--threshold {negative[0]}: is negative; 0 keeps every value.")
    for cap in caps:
        if cap is not None and cap < 2:
            raise VocabularyError(f"--max_cardinality {cap}: must be at least 2: id 0 and one other id.")
        if cap is not None:
            minimal_dtype(cap)
    if not 0 <= seed < 1 << 63:
        raise VocabularyError(f"--seed {seed}: must be from 0 to 2^63 - 1.")
    return Rules(
        thresholds,
        caps,
        vocabulary_days=vocabulary_days or "all",
        on_bad_row=on_bad_row,
        on_truncated=on_truncated,
        shuffle=shuffle,
        seed=seed if shuffle != "none" else 0,
        ids=ids,
    )


def per_column(flag: str, given: int | str | None) -> tuple[int | None, ...]:
    """A number for each categorical column, from text such as "15,cat_0:3": 3 for cat_0, 15 for all other columns.

    "15,14:3" is the same, by the published number of the column. A column without a number gets None.
    """
    numbers: list[int | None] = [None] * NUM_CATEGORICAL
    if given is None:
        return tuple(numbers)
    named: dict[int, int] = {}
    for part in str(given).split(","):
        match = re.fullmatch(r"(?:(\w+):)?(-?\d+)", part.strip())
        column = _column(match[1]) if match and match[1] else None
        if not match or (match[1] and column is None):
            raise VocabularyError(
                f"--{flag} {given}: {part.strip()!r} is neither a number nor COLUMN:number, where COLUMN is "
                f"{CATEGORICAL[0]} to {CATEGORICAL[-1]}, or {_FIRST_PUBLISHED} to {_LAST_PUBLISHED}."
            )
        if column is None and numbers[0] is not None or column in named:
            raise VocabularyError(f"--{flag} {given}: gives the number for {match[1] or 'all columns'} twice.")
        if column is None:
            numbers = [int(match[2])] * NUM_CATEGORICAL
        else:
            named[column] = int(match[2])
    return tuple(named.get(column, number) for column, number in enumerate(numbers))


def format_per_column(numbers: tuple[int | None, ...]) -> int | str | None:
    """The shortest text that `per_column` reads as these numbers; an int where all columns have the same number."""
    given = [number for number in numbers if number is not None]
    if not given:
        return None
    usual = max(given, key=given.count) if len(given) == len(numbers) else None
    parts = [] if usual is None else [str(usual)]
    parts += [f"{name}:{n}" for name, n in zip(CATEGORICAL, numbers, strict=True) if n is not None and n != usual]
    return usual if len(parts) == 1 and usual is not None else ",".join(parts)


def _column(name: str) -> int | None:
    """The categorical column with a name or a published number; None for other text."""
    if name in CATEGORICAL:
        return CATEGORICAL.index(name)
    if name.isdecimal() and _FIRST_PUBLISHED <= int(name) <= _LAST_PUBLISHED:
        return int(name) - _FIRST_PUBLISHED
    return None
