"""A dynamic table as plain data: its rows belong to keys, any int64, which come and go while it trains.

To the plan it is a table whose rows are cut at the bounds of its buckets (sharding/buckets.py).
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from dlrm_tf2.sharding.buckets import BUCKET_CAPACITY, Buckets, buckets_of
from dlrm_tf2.sharding.tables import check_columns_and_features

# The order of these and of INITIALIZERS is the numbering of the native ops.
SCORES = ("timestamp", "step", "lfu", "custom", "no_eviction")
COUNTERS_OF_ADMISSION = ("exact", "sketch")
INITIALIZERS = ("constant", "uniform", "normal", "truncated_normal")

_ROW_BYTES = 16  # of a row, for its score and step
_INDEX_BYTES = 32  # of a row, for its key in the index
_EXACT_BYTES = 24  # of a key that the exact counter counts
_SKETCH_BYTES = 8  # of the sketch, for each key of the capacity, where no number of bytes is given


class Initializer(NamedTuple):
    """How the weights of a key's fresh row are drawn; they depend on seed, table, key and column alone.

    Attributes:
      kind: "constant" (its value is low_or_mean), "uniform" from low to high, "normal" with a mean and a standard
        deviation, or "truncated_normal", which draws again what is further than two standard deviations away.
    """

    kind: str
    low_or_mean: float
    high_or_std: float = 0.0


@dataclass(frozen=True)
class AfterCount:
    """Admission of a key in the batch in which its number of occurrences reaches a threshold.

    Attributes:
      threshold: occurrences, in all batches together.
      counter: "exact" counts a bounded number of keys, and forgets the rarest; "sketch" never forgets a key, and may
        count a key too high.
      counter_bytes: memory of the counter; when not given, enough for as many keys as the table's capacity.
    """

    threshold: int
    counter: str = "exact"
    counter_bytes: int | None = None


@dataclass(frozen=True)
class WithProbability:
    """Admission of a missing key by chance: in each step with this probability."""

    probability: float


@dataclass(frozen=True)
class AfterSteps:
    """Expiry of a key that no batch has had for so many steps."""

    steps: int


@dataclass(frozen=True)
class AfterSeconds:
    """Expiry of a key that no batch has had for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class DynamicTableConfig:
    """One dynamic table; it is given where a TableConfig is.

    Attributes:
      name: unique in the model.
      capacity: so many keys always find room.
      embedding_dim, combiner, features: as TableConfig has them.
      initializer: makes the weights of a fresh row; uniform in +-sqrt(1 / capacity) when not given.
      score: which keys leave a full bucket, those with the lowest score: "timestamp" and "step" of the last batch that
        had the key; "lfu", occurrences; "custom", a number given with each batch. "no_eviction": no key leaves.
      admission: which missing keys are stored: all when not given.
      expiry: when a key leaves although there is room: never when not given.
      default: each number of the vector of a key that is not stored.
      bucket_capacity: keys of a bucket, about; a bucket chooses for itself which of its keys leave.

    Raises:
      ValueError: a size is not positive, or a choice is unknown.
    """

    name: str
    capacity: int
    embedding_dim: int
    combiner: str | None = None
    features: tuple[str, ...] = None  # type: ignore[assignment]  # __post_init__ replaces None
    initializer: Initializer = None  # type: ignore[assignment]  # likewise
    score: str = "timestamp"
    admission: AfterCount | WithProbability | None = None
    expiry: AfterSteps | AfterSeconds | None = None
    default: float = 0.0
    bucket_capacity: int = BUCKET_CAPACITY

    is_dynamic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for size in ("capacity", "embedding_dim", "bucket_capacity"):
            if getattr(self, size) < 1:
                raise ValueError(f"table {self.name!r}: {size} {getattr(self, size)}; it must be 1 or more.")
        if self.features is None:
            object.__setattr__(self, "features", (self.name,))
        check_columns_and_features(self)
        if self.initializer is None:
            bound = self.capacity**-0.5
            object.__setattr__(self, "initializer", Initializer("uniform", -bound, bound))
        _check_choice(self, "score", found=self.score, choices=SCORES)
        _check_choice(self, "initializer", found=self.initializer.kind, choices=INITIALIZERS)
        if self.initializer.kind.endswith("normal") and self.initializer.high_or_std < 0:
            std = self.initializer.high_or_std
            raise ValueError(f"table {self.name!r}: a standard deviation of {std}; it must be 0 or more.")
        self._check_admission_and_expiry()

    def _check_admission_and_expiry(self) -> None:
        admission, expiry = self.admission, self.expiry
        if isinstance(admission, AfterCount):
            _check_choice(self, "counter", found=admission.counter, choices=COUNTERS_OF_ADMISSION)
            if admission.threshold < 1:
                raise ValueError(
                    f"table {self.name!r}: admission after {admission.threshold} times; it must be 1 or more."
                )
            if self.counter_bytes < _EXACT_BYTES * self.buckets.num_buckets:
                raise ValueError(
                    f"table {self.name!r}: counter_bytes {admission.counter_bytes}; its {self.buckets.num_buckets} "
                    f"buckets need {_EXACT_BYTES} bytes each at least."
                )
        if isinstance(admission, WithProbability) and not 0 < admission.probability <= 1:
            raise ValueError(
                f"table {self.name!r}: admission with probability {admission.probability}; it must be above 0, and at "
                "most 1."
            )
        idle = expiry.steps if isinstance(expiry, AfterSteps) else expiry.seconds if expiry else 1
        if idle <= 0:
            raise ValueError(f"table {self.name!r}: {expiry}; the number must be positive.")

    @property
    def buckets(self) -> Buckets:
        """The buckets: a function of the capacities alone, not of the number of ranks."""
        return buckets_of(self.capacity, self.bucket_capacity)

    @property
    def num_rows(self) -> int:
        """Rows of all buckets."""
        return self.buckets.num_rows

    @property
    def num_elements(self) -> int:
        return self.num_rows * self.embedding_dim

    @property
    def counter_bytes(self) -> int:
        """Bytes of the counter of admission, over all buckets."""
        if not isinstance(self.admission, AfterCount):
            return 0
        each = _EXACT_BYTES if self.admission.counter == "exact" else _SKETCH_BYTES
        return each * self.capacity if self.admission.counter_bytes is None else self.admission.counter_bytes

    @property
    def counted_keys(self) -> int:
        """Keys that an exact counter of admission counts at a time, over all buckets."""
        return self.counter_bytes // _EXACT_BYTES

    def index_bytes(self, num_rows: int) -> int:
        """The most bytes that the index, the scores and the counter of admission take for some of the table's rows."""
        return num_rows * (_ROW_BYTES + _INDEX_BYTES) + self.counter_bytes * num_rows // self.num_rows


def bucket_rows(table: DynamicTableConfig, world_size: int) -> dict[int, tuple[int, int]]:
    """Rank -> the rows of the buckets that the rank owns, for the ranks that own any."""
    buckets = table.buckets
    owned = {rank: buckets.of_rank(rank, world_size) for rank in range(world_size)}
    each = buckets.rows_per_bucket
    return {rank: (of_rank.start * each, of_rank.stop * each) for rank, of_rank in owned.items() if of_rank}


def _check_choice(table: DynamicTableConfig, what: str, *, found: str, choices: tuple[str, ...]) -> None:
    if found not in choices:
        raise ValueError(f"table {table.name!r}: {what} {found!r}; it must be one of {', '.join(choices)}.")
