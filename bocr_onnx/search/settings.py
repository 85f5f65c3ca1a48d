"""Settings of single strategies."""

from __future__ import annotations

from dataclasses import dataclass, fields

from bocr_onnx.errors import UsageError, did_you_mean

CHOICES: dict[str, tuple[str, tuple[str, ...]]] = {
    "similarity": ("bocr-paper", ("euclidean", "jensen-shannon", "structural")),
    "rollback": ("bocr-paper", ("gradual", "direct", "none")),
    "constraint": ("bocr-paper", ("shift", "wall")),
    "transfer": ("amc", ("none", "plain", "augmented")),
    "assistant": ("amc", ("off", "on")),
    "warm_up": ("amc", ("auto", "short")),
}
"""Setting -> the strategy that reads it, and what it may say."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of single strategies.

    Attributes:
        similarity: In ``bocr-paper``: distance between groups, from densities of channel importance or from structure.
        rollback: In ``bocr-paper``: over bridge clusters, directly to all groups, or none: all groups from the start.
        constraint: In ``bocr-paper``: the projection that all strategies share, or the published wall.
        transfer: In ``amc``: what an agent takes over from earlier searches in the history.
        assistant: In ``amc``: whether a predictor of the objective chooses among rollouts and adds synthetic ones.
        warm_up: In ``amc``: random episodes as published, or few as with history: the control of transfer.
    """

    similarity: str = "euclidean"
    rollback: str = "gradual"
    constraint: str = "shift"
    transfer: str = "none"
    assistant: str = "off"
    warm_up: str = "auto"

    def check(self, strategy: str) -> None:
        """Raises where a value is unknown, or where a setting is not read by the strategy.

        Raises:
            UsageError: Names the setting.

        Example:
            >>> Settings(transfer="plain").check("bocr")
            Traceback (most recent call last):
            ...
            bocr_onnx.errors.UsageError: --transfer must be given with --search amc, got --search bocr
        """
        for field in fields(self):
            value, (reader, known) = getattr(self, field.name), CHOICES[field.name]
            name = field.name.replace("_", "-")
            if value not in known:
                hint = did_you_mean(value, known)
                raise UsageError(f"--{name} must be a known choice, got {value!r}", hint=hint)
            if value != field.default and strategy != reader:
                raise UsageError(f"--{name} must be given with --search {reader}, got --search {strategy}")
