"""The optimizers by name, and what each one keeps for the rows of a table. The formulas are in dlrm_tf2/optim.py."""

from typing import NamedTuple

FLOAT_BYTES = 4  # optimizer state is stored in float32, for any type of the weights


class RowState(NamedTuple):
    """What an optimizer keeps for the rows of a table, next to their weights.

    Attributes:
      slots: names of the numbers that it keeps.
      one_number_a_row: each slot has one number for a whole row, and not one for each weight of the row.
    """

    slots: tuple[str, ...]
    one_number_a_row: bool = False

    @property
    def num_per_weight(self) -> int:
        """Numbers that it keeps for each weight."""
        return 0 if self.one_number_a_row else len(self.slots)

    def slot_width(self, width: int) -> int:
        """Numbers that a slot has for one row of `width` weights."""
        return 1 if self.one_number_a_row else width

    def num_bytes(self, num_rows: int, width: int) -> int:
        """Bytes of all slots for `num_rows` rows of `width` weights."""
        return FLOAT_BYTES * num_rows * self.slot_width(width) * len(self.slots)


OPTIMIZERS = {
    "sgd": RowState(()),
    "adagrad": RowState(("accumulator",)),
    "rowwise_adagrad": RowState(("row_accumulator",), one_number_a_row=True),
    "adam": RowState(("first_moment", "second_moment")),
}
DEFAULT_OPTIMIZER = "sgd"


def needs_whole_rows(optimizer: str) -> bool:
    """Whether an update needs all columns of a row, so that a table cannot be cut by columns."""
    return OPTIMIZERS[optimizer].one_number_a_row
