"""Options of particular search strategies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args, get_type_hints

from bocr_onnx.errors import UsageError
from bocr_onnx.options.record import Flag, options_of, record
from bocr_onnx.options.types import STRATEGY

SearchName = Literal["bocr", "bocr-paper", "bo", "local", "amc", "sensitivity", "random", "uniform"]


@dataclass(frozen=True, slots=True)
class Only:
    """The one strategy that reads an option."""

    strategy: str


@record
class StrategyOptions:
    """Options that one strategy reads each."""

    similarity: Annotated[
        Literal["euclidean", "jensen-shannon", "structural"],
        Flag("bocr-paper: distance between groups, from channel importance or from structure.", STRATEGY),
        Only("bocr-paper"),
    ] = "euclidean"
    rollback: Annotated[
        Literal["gradual", "direct", "none"],
        Flag("bocr-paper: over bridge clusters, directly to all groups, or all groups from the start.", STRATEGY),
        Only("bocr-paper"),
    ] = "gradual"
    constraint: Annotated[
        Literal["shift", "wall"],
        Flag("bocr-paper: the projection that all strategies share, or the published wall.", STRATEGY),
        Only("bocr-paper"),
    ] = "shift"
    transfer: Annotated[
        Literal["none", "plain", "augmented"],
        Flag("amc: what the agent takes over from past searches in the history.", STRATEGY),
        Only("amc"),
    ] = "none"
    assistant: Annotated[
        Literal["off", "on"],
        Flag("amc: whether a predictor of the objective chooses among rollouts.", STRATEGY),
        Only("amc"),
    ] = "off"
    warm_up: Annotated[
        Literal["auto", "short"],
        Flag("amc: random episodes as published, or few, as with transfer.", STRATEGY),
        Only("amc"),
    ] = "auto"

    def of_strategies(self) -> StrategyOptions:
        """Returns these options alone, where they are part of a larger record."""
        return StrategyOptions(**{o.name: getattr(self, o.name) for o in options_of(StrategyOptions)})

    def check_read_by(self, strategy: str) -> None:
        """Raises where an option is given that the strategy does not read.

        Raises:
            UsageError: Names the option.

        Example:
            >>> StrategyOptions(transfer="plain").check_read_by("bocr")
            Traceback (most recent call last):
            ...
            bocr_onnx.errors.UsageError: `transfer` must be given with `search=amc`, got `search=bocr`
        """
        hints = get_type_hints(StrategyOptions, include_extras=True)
        for option in options_of(StrategyOptions):
            reader = next(m.strategy for m in get_args(hints[option.name]) if isinstance(m, Only))
            if getattr(self, option.name) != option.default and strategy != reader:
                raise UsageError(f"`{option.name}` must be given with `search={reader}`, got `search={strategy}`")
