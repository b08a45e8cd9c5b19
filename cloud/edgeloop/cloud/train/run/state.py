"""How far a training came."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(slots=True)
class State:
    """A checkpoint holds it.

    Attributes:
        epoch: Epochs that are done.
        best_loss: None: there is no best epoch yet.
        done: Steps of the epoch that is under way; loss (their sum), seconds and waited_s are of these.
        spent_s: By the clock, of all attempts: validation and saving too.
        longest_s: The same of the longest epoch.
        epoch_began_s: `spent_s` at the beginning of the epoch that is under way, or was last.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float | None = None
    done: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    waited_s: float = 0.0
    spent_s: float = 0.0
    longest_s: float = 0.0
    epoch_began_s: float = 0.0

    def epoch_done(self, best: bool, loss: float) -> State:
        """The state after one epoch more; `loss` is that of the validation data, `best` whether it is the lowest."""
        epoch = self.epoch + 1
        return replace(
            State(),
            epoch=epoch,
            best_epoch=epoch if best else self.best_epoch,
            best_loss=loss if best else self.best_loss,
            spent_s=self.spent_s,
            longest_s=max(self.longest_s, self.spent_s - self.epoch_began_s),
            epoch_began_s=self.epoch_began_s,
        )
