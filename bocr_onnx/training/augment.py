"""Random flips and crops of a batch, drawn per sample, as tensor operations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from bocr_onnx.data.augmentation import Augmentation


def augment(batch: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Returns a batch of the same shape in which every sample is shifted and perhaps mirrored.

    A sample is padded by zeros (the mean, for normalized images) on all four sides and cropped back at a
    place drawn uniformly; then it is mirrored left to right with probability one half. Nothing is drawn for
    what is switched off.

    Args:
        batch: Shape `(N, C, H, W)`.
        augmentation: What to do.
        generator: On the CPU; the only source of randomness.
    """
    if augmentation.pad:
        batch = _shifted(batch, augmentation.pad, generator)
    if augmentation.flip:
        mirrored = torch.rand(len(batch), generator=generator) < 0.5
        batch = torch.where(mirrored.to(batch.device).reshape(-1, 1, 1, 1), batch.flip(3), batch)
    return batch


def _shifted(batch: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    n, _, height, width = batch.shape
    padded = functional.pad(batch, (pad, pad, pad, pad))
    top, left = torch.randint(0, 2 * pad + 1, (2, n), generator=generator).to(batch.device)
    rows = top[:, None] + torch.arange(height, device=batch.device)
    columns = left[:, None] + torch.arange(width, device=batch.device)
    sample = torch.arange(n, device=batch.device)[:, None, None]
    # Indices around the channel axis put it last: (N, H, W, C).
    return padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
