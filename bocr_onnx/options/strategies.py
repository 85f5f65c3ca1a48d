"""Options of particular search strategies."""

from __future__ import annotations

from typing import Annotated, Literal

from bocr_onnx.errors import UsageError
from bocr_onnx.options.record import Flag, options_of, record
from bocr_onnx.options.types import STRATEGY

SearchName = Literal["bocr", "bocr-paper", "bo", "local", "amc", "sensitivity", "random", "uniform"]


def _read_by(strategy: str, text: str) -> Flag:
    return Flag(f"{strategy}: {text}", STRATEGY, strategy=strategy)


@record
class StrategyOptions:
    """Options that one strategy reads each."""

    similarity: Annotated[
        Literal["euclidean", "jensen-shannon", "structural"],
        _read_by("bocr-paper", "distance between groups, from channel importance or from structure."),
    ] = "euclidean"
    rollback: Annotated[
        Literal["gradual", "direct", "none"],
        _read_by("bocr-paper", "over bridge clusters, directly to all groups, or all groups from the start."),
    ] = "gradual"
    constraint: Annotated[
        Literal["shift", "wall"],
        _read_by("bocr-paper", "the projection that all strategies share, or the published wall."),
    ] = "shift"
    transfer: Annotated[
        Literal["none", "plain", "augmented"],
        _read_by("amc", "what the agent takes over from past searches in the history."),
    ] = "none"
    assistant: Annotated[
        Literal["off", "on"], _read_by("amc", "whether a predictor of the objective chooses among rollouts.")
    ] = "off"
    warm_up: Annotated[
        Literal["auto", "short"], _read_by("amc", "random episodes as published, or few, as with transfer.")
    ] = "auto"

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
        for o in options_of(StrategyOptions):
            if getattr(self, o.name) != o.default and strategy != o.flag.strategy:
                raise UsageError(f"`{o.name}` must be given with `search={o.flag.strategy}`, got `search={strategy}`")
