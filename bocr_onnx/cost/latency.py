"""Latency of a policy by arithmetic, once `bocr_onnx.devices.fit` has fitted it to timings on a device.

Kernels work on blocks of b channels, so part of the time of an operator follows its lengths padded to whole blocks, and
part of it the lengths themselves:

    macs_i(n)  = scale_i * n_out * n_in                        one term of the cost model, of some lengths n
    moved_i(n) = scale_i * n for each of its axes              what is read and written for it
    share(w)   = a + sum over classes c, and over n = n(w) and n = pad(n(w)), of
                     beta * macs_c(n) + gamma_axis * moved_c,axis(n)

Terms of the same scale are a class: they have as many positions and as large a kernel, so they run at the same speed.
The coefficients are not negative, so time never falls as channels come.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

NARROW = 3
"""Axes up to this length are not padded: the colours of an image."""


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """Time of policies.

    Attributes:
        block: Channels that a kernel works on at once.
        coefficients: Constant, then one per feature, in shares of the original's time, shape `(1 + n_features,)`.
        full_ms: Time of the original in ms.
        error: Typical relative error on policies that it was not fitted to.
    """

    block: int
    coefficients: tuple[float, ...]
    full_ms: float
    error: float

    def share(self, features: Floats) -> Floats:
        """Returns the share of the original's time, shape `(n_policies,)`, for features `(n_policies, n_features)`."""
        return np.asarray(self.coefficients[0] + features @ np.array(self.coefficients[1:]))

    def as_json(self) -> dict[str, Any]:
        """Returns it as JSON."""
        return {"block": self.block, "coefficients": list(self.coefficients), "full_ms": self.full_ms,
                "error": self.error}  # fmt: skip


def features_of(scale: Floats, forms: Floats, widths: Floats, block: int) -> Floats:
    """Returns what time follows, shape `(n_policies, n_features)`, each 1 at the full widths.

    Args:
        scale: Factor of each term, shape `(n_terms,)`.
        forms: Axis lengths as linear forms, shape `(n_terms, n_axes, 1 + n_groups)`.
        widths: Shape `(n_policies, n_groups)`; the first row the full ones. They need not be whole.
        block: Channels that a kernel works on at once.
    """
    ones = np.ones((len(widths), 1))
    lengths: Floats = np.einsum("pg,tag->pta", np.concatenate([ones, widths], axis=1), forms)
    if block == 1:
        return _of_lengths(scale, lengths)
    depends: npt.NDArray[np.bool_] = np.any(forms[:, :, 1:], axis=2)
    cut = depends[None] & (lengths > NARROW)
    padded: Floats = np.where(cut, np.ceil(lengths / block - 1e-9) * block, lengths)
    return np.concatenate([_of_lengths(scale, lengths), _of_lengths(scale, padded)], axis=1)


def _of_lengths(scale: Floats, lengths: Floats) -> Floats:
    """Returns MACs and what is moved of every class, for axis lengths `(n_policies, n_terms, n_axes)`."""
    macs, moved = scale * lengths.prod(axis=2), scale[:, None] * lengths
    classes = np.log2(np.maximum(scale, 1e-9)).round(1)
    found: list[Floats] = []
    for one in np.unique(classes):
        rows = np.nonzero(classes == one)[0]
        found += [macs[:, rows].sum(axis=1), *(moved[:, rows, axis].sum(axis=1) for axis in range(lengths.shape[2]))]
    made: Floats = np.array(found).T
    return np.asarray(made / np.maximum(made[:1], 1e-9), dtype=np.float64)


def read_latency(record: Mapping[str, Any]) -> LatencyModel:
    """Returns the model that `LatencyModel.as_json` has written.

    Raises:
        ValueError: It is another record.
    """
    try:
        coefficients = tuple(float(value) for value in record["coefficients"])
        found = LatencyModel(int(record["block"]), coefficients, float(record["full_ms"]), float(record["error"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"a record of latency must hold block, coefficients, full_ms and error: {error}") from error
    if not (found.block >= 1 and np.isfinite([*coefficients, found.full_ms, found.error]).all()):
        raise ValueError("a record of latency must hold finite numbers")
    return found
