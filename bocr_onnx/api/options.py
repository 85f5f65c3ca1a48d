"""What a run is asked for, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from bocr_onnx.errors import UsageError, shortened
from bocr_onnx.evaluation import Recovery
from bocr_onnx.search import Budget, Settings
from bocr_onnx.search.strategies import MIN_TRIALS, find_strategy

MIN_MEMORY, MAX_MEMORY = 0.01, 65_536.0
MAX_TRIALS, MAX_IMAGES = 1_000_000, 100_000_000
MAX_EPOCHS, MAX_THREADS, MAX_WORKERS, MAX_SEED, MAX_GRID, MAX_STEPS = 10_000, 1_024, 256, 2**32 - 1, 65_536, 100
AUTO_GRID = 8
"""Full blocks of the CPU kernels of ONNX Runtime: counts off the grid run up to twice as slow as the unpruned layer."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a run was asked for; written to run.json, so that it can be continued.

    Attributes:
        model: The .onnx file.
        flops: Shares of MACs to keep, one for each model that is made, or one for all.
        params: Shares of parameters to keep.
        size: Shares of the file size to keep.
        data: Images: a folder, a manifest, an .npz, or ``torchvision:NAME@ROOT``.
        preprocessing: A preset or a file; None guesses.
        output: The slim .onnx file.
        strategy: Name of the search.
        settings: Settings of particular strategies.
        trials: Evaluated policies, of all budgets together.
        race: Whether hopeless trials are stopped on the first images.
        seed: Seed for all random draws.
        recover: Recovery of the emitted model.
        finetune: Epochs of finetuning after the search, in every round.
        steps: Rounds of search, recovery and finetuning towards the budget.
        teacher: What finetuning learns from; None for the model itself.
        round_to: Channel grid; 0 chooses one.
        freeze: Patterns of groups that keep all channels.
        only: Patterns of the only groups that may lose channels; all where empty.
        min_width: Channels that every group keeps at least.
        n_score: Images a trial is scored on.
        n_recovery: Images the recovery is fitted on.
        memory: GiB that images and activations may take together.
        n_final: Unseen images that the report's score is taken on.
        threads: Number of threads used when measuring latency.
        workers: Trials that run at once.
        ray: Address of the Ray cluster they run on; None for this machine.
        history: File of earlier searches, or ``none``; None for the one in the user's data folder.
        input_shapes: Shapes of inputs, for the axes that the file leaves open, by name.

    Raises:
        UsageError: `check` finds an option that is out of range, unknown, or contradicts another.
    """

    model: str
    flops: tuple[float, ...] = ()
    params: tuple[float, ...] = ()
    size: tuple[float, ...] = ()
    data: str | None = None
    preprocessing: str | None = None
    output: str | None = None
    strategy: str = "bocr"
    settings: Settings = field(default_factory=Settings)
    trials: int = 40
    race: bool = True
    seed: int = 0
    recover: Recovery = "sequential"
    finetune: float = 0
    steps: int = 1
    teacher: str | None = None
    round_to: int = 0
    freeze: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    min_width: int = 1
    n_score: int = 2_000
    n_recovery: int = 1_000
    n_final: int = 10_000
    memory: float = 2.0
    threads: int = 1
    workers: int = 1
    ray: str | None = None
    history: str | None = None
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def n_images(self) -> dict[str, int]:
        """Returns the sizes of the parts that images are divided into, as `bocr_onnx.data.split` takes them."""
        return {"n_score": self.n_score, "n_recovery": self.n_recovery, "n_final": self.n_final}

    @property
    def memory_bytes(self) -> int:
        """Returns what images and activations may take together."""
        return int(self.memory * 2**30)

    @property
    def grid(self) -> int:
        """Returns the channel grid."""
        return self.round_to or AUTO_GRID

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """Returns the budgets, the most generous first.

        Raises:
            UsageError: The bounds are given for different numbers of models.
        """
        given = {"flops": self.flops, "params": self.params, "size": self.size}
        n = max(len(shares) for shares in given.values())
        for name, shares in given.items():
            if len(shares) not in (0, 1, n):
                raise UsageError(f"--{name} must hold one share or {n}, got {len(shares)}")
        columns = {name: shares * n if len(shares) == 1 else shares for name, shares in given.items() if shares}
        budgets = [Budget(**{name: column[i] for name, column in columns.items()}) for i in range(n)] or [Budget()]
        if len({b.label for b in budgets}) < len(budgets):
            raise UsageError("budgets must differ, got one twice")
        return tuple(sorted(budgets, key=lambda b: [-(share or 1.0) for share in b.shares().values()]))

    def part(self, number: int, output: str) -> Options:
        """Returns the options of one of several budgets, with its share of the trials.

        Args:
            number: Number of the budget.
            output: Its slim file.
        """
        budgets = self.budgets
        flops, params, size = (() if s is None else (s,) for s in budgets[number].shares().values())
        trials = self.trials // len(budgets) + (number < self.trials % len(budgets))
        return replace(self, flops=flops, params=params, size=size, trials=trials, output=output)

    def check(self) -> None:
        """Raises where an option is wrong."""
        find_strategy(self.strategy)
        self.settings.check(self.strategy)
        if self.steps > 1 and len(self.budgets) > 1:
            raise UsageError("--steps must go towards one budget, got several")
        if self.steps > 1 and self.data is None:
            raise UsageError("--steps must have images to recover and score with, got no --data")
        needed = MIN_TRIALS.get(self.strategy, 1) * len(self.budgets) * self.steps
        if self.trials < needed:
            raise UsageError(
                f"--trials must be at least {needed} for --search {self.strategy}"
                f"{f' in {self.steps} steps' if self.steps > 1 else ''}, got {self.trials}"
            )
        if self.recover not in ("none", "oneshot", "sequential"):
            raise UsageError(f"--recover must be none, oneshot or sequential, got {self.recover!r}")
        if self.data is None and self.strategy != "uniform":
            raise UsageError(
                f"--search {self.strategy} must have images to score with, got no --data",
                hint="Give --data PATH (labels are not needed), or --search uniform",
            )
        if self.data == "":
            raise UsageError("--data must name a folder or a file, got an empty name")
        for name, value, most in (
            ("threads", self.threads, MAX_THREADS),
            ("workers", self.workers, MAX_WORKERS),
            ("seed", self.seed, MAX_SEED),
            ("steps", self.steps, MAX_STEPS),
            ("round-to", self.round_to, MAX_GRID),
            ("trials", self.trials, MAX_TRIALS),
            ("score-images", self.n_score, MAX_IMAGES),
            ("recovery-images", self.n_recovery, MAX_IMAGES),
            ("final-images", self.n_final, MAX_IMAGES),
            ("memory", self.memory, MAX_MEMORY),
        ):
            if value > most:
                raise UsageError(f"--{name} must be at most {most}, got {shortened(value)}")
        if self.data is None and self.finetune:
            raise UsageError("--finetune must have images to train on, got no --data")
        if not 0 <= self.finetune < MAX_EPOCHS:
            raise UsageError(f"--finetune must be a number of epochs, got {self.finetune:g}")
        for name, value, least in (
            ("--seed", self.seed, 0),
            ("--steps", self.steps, 1),
            ("--min-width", self.min_width, 1),
            ("--score-images", self.n_score, 1),
            ("--recovery-images", self.n_recovery, 1),
            ("--final-images", self.n_final, 1),
            ("--memory", self.memory, MIN_MEMORY),
            ("--threads", self.threads, 1),
            ("--workers", self.workers, 1),
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


FLAGS = {
    "strategy": "search",
    "n_score": "score-images",
    "n_recovery": "recovery-images",
    "n_final": "final-images",
    "preprocessing": "preset",
}
"""Options that the command line calls otherwise."""


def flag(name: str) -> str:
    """Returns what the command line calls an option.

    Example:
        >>> flag("n_score"), flag("min_width")
        ('--score-images', '--min-width')
    """
    return f"--{FLAGS.get(name, name).replace('_', '-')}"


def shown(value: object) -> str:
    """Returns the value of an option as it is typed; words where it is not given."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "not given"
    return "not given" if value in (None, "") else str(value)[:60]


def vars_of(options: Options) -> dict[str, Any]:
    """Returns the options by name, as they are."""
    return {f.name: getattr(options, f.name) for f in fields(options)}
