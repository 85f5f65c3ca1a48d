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
from dataclasses import dataclass, replace
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

    def as_json(self) -> dict[str, Any]:
        """Returns it as JSON."""
        return {"block": self.block, "coefficients": list(self.coefficients), "full_ms": self.full_ms,
                "error": self.error}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Features:
    """What time follows, of the policies of one model, each 1 at the full widths.

    Attributes:
        forms: Axis lengths as linear forms, a column each, shape `(1 + n_groups, n_terms * n_axes)`.
        padded: Where a length is padded to whole blocks, shape `(n_terms, n_axes)`.
        block: Channels that a kernel works on at once.
        macs: What a term's product of lengths adds to each feature, shape `(n_versions, n_terms, n_features)`.
        moved: What a length adds, shape `(n_versions, n_terms, n_axes, n_features)`.
    """

    forms: Floats
    padded: npt.NDArray[np.bool_]
    block: int
    macs: Floats
    moved: Floats

    def of(self, widths: Floats) -> Floats:
        """Returns the features of policies, shape `(n_policies, n_features)`, for widths `(n_policies, n_groups)`."""
        found: Floats = np.zeros((len(widths), self.macs.shape[-1]))
        for version, lengths in enumerate(self._lengths(widths)):
            found += lengths.prod(axis=2) @ self.macs[version]
            found += np.tensordot(lengths, self.moved[version], 2)
        return found

    def weighed(self, coefficients: Floats) -> Features:
        """Returns their sum with coefficients as the only feature."""
        weights = coefficients[:, None]
        return replace(self, macs=self.macs @ weights, moved=self.moved @ weights)

    def _lengths(self, widths: Floats) -> tuple[Floats, ...]:
        """Returns axis lengths, shape `(n_policies, n_terms, n_axes)`, and beside them padded ones, if any."""
        flat = self.forms[0] + widths @ self.forms[1:]
        lengths: Floats = flat.reshape(len(widths), *self.padded.shape)
        if self.block == 1:
            return (lengths,)
        blocks = np.ceil(lengths / self.block - 1e-9)
        return lengths, np.where(self.padded & (lengths > NARROW), blocks * self.block, lengths)


def features_of(scale: Floats, forms: Floats, full: npt.NDArray[np.int64], block: int) -> Features:
    """Returns the features of a model: MACs and what is moved, for every class of terms.

    Args:
        scale: Factor of each term, shape `(n_terms,)`.
        forms: Axis lengths as linear forms, shape `(n_terms, n_axes, 1 + n_groups)`.
        full: Widths of the original, shape `(n_groups,)`.
        block: Channels that a kernel works on at once.
    """
    n_terms, n_axes, _ = forms.shape
    names, classes = np.unique(np.log2(np.maximum(scale, 1e-9)).round(1), return_inverse=True)
    n_versions, per_class = 1 if block == 1 else 2, 1 + n_axes
    n_features = n_versions * len(names) * per_class
    macs, moved = np.zeros((n_versions, n_terms, n_features)), np.zeros((n_versions, n_terms, n_axes, n_features))
    for version in range(n_versions):
        first = (version * len(names) + classes) * per_class
        macs[version, np.arange(n_terms), first] = scale
        for axis in range(n_axes):
            moved[version, np.arange(n_terms), axis, first + 1 + axis] = scale
    flat = np.ascontiguousarray(forms.reshape(n_terms * n_axes, -1).T)
    made = Features(flat, np.any(forms[:, :, 1:], axis=2), block, macs, moved)
    whole = np.maximum(made.of(full[None].astype(np.float64))[0], 1e-9)
    return replace(made, macs=macs / whole, moved=moved / whole)


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
