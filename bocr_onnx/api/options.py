"""What a run is asked for, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from bocr_onnx.errors import UsageError
from bocr_onnx.evaluation import Recovery
from bocr_onnx.search import Budget
from bocr_onnx.search.strategies import find_strategy

MAX_EPOCHS, MAX_THREADS = 10_000, 1_024
AUTO_GRID = 8
"""Full blocks of the CPU kernels of ONNX Runtime: counts off the grid run up to twice as slow as the unpruned layer."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a run was asked for; written to run.json, so that it can be continued.

    Attributes:
        model: The .onnx file.
        flops: Share of MACs to keep.
        params: Share of parameters to keep.
        size: Share of the file size to keep.
        data: Images: a folder, a manifest, an .npz, or ``torchvision:NAME@ROOT``.
        preprocessing: A preset or a file; None guesses.
        output: The slim .onnx file.
        strategy: Name of the search.
        trials: Evaluated policies.
        seed: Of everything that is drawn.
        recover: Recovery of the emitted model.
        finetune: Epochs of finetuning after the search.
        round_to: Channel grid; 0 chooses one.
        freeze: Patterns of groups that keep all channels.
        only: Patterns of the only groups that may lose channels; all where empty.
        min_width: Channels that every group keeps at least.
        n_score: Images a trial is scored on.
        n_recovery: Images the recovery is fitted on.
        threads: Of the latency measurement.

    Raises:
        UsageError: `check` finds an option that is out of range, unknown, or contradicts another.
    """

    model: str
    flops: float | None = None
    params: float | None = None
    size: float | None = None
    data: str | None = None
    preprocessing: str | None = None
    output: str | None = None
    strategy: str = "bocr"
    trials: int = 40
    seed: int = 0
    recover: Recovery = "sequential"
    finetune: float = 0
    round_to: int = 0
    freeze: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    min_width: int = 1
    n_score: int = 2_000
    n_recovery: int = 1_000
    threads: int = 1

    @property
    def grid(self) -> int:
        """Returns the channel grid."""
        return self.round_to or AUTO_GRID

    @property
    def budget(self) -> Budget:
        """Returns the budget."""
        return Budget(self.flops, self.params, self.size)

    def check(self) -> None:
        """Raises where an option is wrong."""
        find_strategy(self.strategy)
        self.budget.shares()
        if self.recover not in ("none", "oneshot", "sequential"):
            raise UsageError(f"--recover must be none, oneshot or sequential, got {self.recover!r}")
        if self.data is None and self.strategy != "uniform":
            raise UsageError(
                f"--search {self.strategy} must have images to score with, got no --data",
                hint="Give --data PATH (labels are not needed), or --search uniform",
            )
        if self.data == "":
            raise UsageError("--data must name a folder or a file, got an empty name")
        if self.threads > MAX_THREADS:
            raise UsageError(f"--threads must be at most {MAX_THREADS}, got {self.threads}")
        if self.data is None and self.finetune:
            raise UsageError("--finetune must have images to train on, got no --data")
        if not 0 <= self.finetune < MAX_EPOCHS:
            raise UsageError(f"--finetune must be a number of epochs, got {self.finetune:g}")
        for name, value, least in (
            ("--trials", self.trials, 1),
            ("--seed", self.seed, 0),
            ("--min-width", self.min_width, 1),
            ("--score-images", self.n_score, 1),
            ("--recovery-images", self.n_recovery, 1),
            ("--threads", self.threads, 1),
        ):
            if value < least:
                raise UsageError(f"{name} must be at least {least}, got {value}")


def parse_grid(round_to: int | str) -> int:
    """Returns a channel grid; 0 stands for ``auto``.

    Raises:
        UsageError: It is neither ``auto`` nor a positive whole number.
    """
    if round_to == "auto":
        return 0
    try:
        grid = int(round_to)
    except ValueError as error:
        raise UsageError(f"--round-to must be auto or a whole number, got {round_to!r}") from error
    if grid < 1:
        raise UsageError(f"--round-to must be auto or at least 1, got {grid}")
    return grid
