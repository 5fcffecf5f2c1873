"""What follows a training besides its log: called by rank 0 before and after the parts of a training."""


class RunObserver:
    """Does nothing; a subclass replaces the methods that it needs. An epoch is a number of passes, such as 0.25."""

    def training_begins(self, num_train: int, num_eval: int, *, epoch: float, epochs: float) -> None:
        """Before the first step.

        Args:
          num_train: samples of a pass.
          num_eval: samples of an evaluation; 0 for no evaluations.
          epoch: passes before the first step.
          epochs: passes until the next evaluation, or until the end.
        """

    def evaluation_begins(self, epoch: float) -> None:
        """Before an evaluation."""

    def evaluated(self, split: str, auc: float | None, *, num_samples: int, epoch: float) -> None:
        """After an evaluation.

        Args:
          split: the split that was scored.
          auc: None where it is not defined.
          num_samples: scored samples.
          epoch: passes so far.
        """

    def training_continues(self, epoch: float, epochs: float) -> None:
        """After an evaluation that was not the last: `epochs` passes until the next."""

    def scored_final_split(self, split: str, auc: float | None, num_samples: int) -> None:
        """After the score of --final_split, which follows the end of the training."""

    def training_ends(self, epoch: float, success: bool) -> None:
        """After the last step and its evaluation, or at an error.

        Args:
          epoch: passes so far.
          success: the AUC that was asked for is reached; where none was asked for, the last step.
        """
