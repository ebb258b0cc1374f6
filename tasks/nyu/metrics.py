"""The six measures of depth prediction (Eigen et al., arXiv:1406.2283), in two protocols.

The official one pools all the pixels of all the images; the other averages what each image has.
Both are made from the same sums, so that neither depends on how images are put into batches.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.nyu.losses import is_known

LEAST_DEPTH = 1e-3
"""Metres, to which predictions are raised: a network may say 0 or less, which has no logarithm."""

DELTAS = (1.25, 1.25**2, 1.25**3)


def image_sums(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return sums over the pixels of each image whose depth is known.

    Args:
        predicted: depths in metres (images, height, width).
        truth: depths in metres of the same shape; 0, less, NaN or infinite where unknown.

    Returns:
        (images, 7) in double precision: pixels, squared errors, relative errors, errors of the
        decimal logarithm, and pixels within each of the three factors.
    """
    known = is_known(truth)
    p = predicted.double().clamp(min=LEAST_DEPTH)
    t = torch.where(known, truth.double(), 1.0)
    ratio = torch.maximum(p / t, t / p)
    measures = [
        torch.ones_like(t),
        (p - t).square(),
        (p - t).abs() / t,
        (p.log10() - t.log10()).abs(),
        *((ratio < delta).double() for delta in DELTAS),
    ]
    return torch.stack([(measure * known).sum((1, 2)) for measure in measures], dim=1)


def pooled(sums: Tensor) -> dict[str, float]:
    """Return the measures over all the pixels of all the images, NaN if no depth is known.

    Args:
        sums: what `image_sums` returns, of all the images.
    """
    return _named(_measures(sums.sum(0, keepdim=True))[0])


def averaged(sums: Tensor) -> dict[str, float]:
    """Return the mean over images of each image's measures; images without depths do not count.

    Without any image that counts they are NaN.

    The mean of the images' RMSE is not the RMSE of all the pixels: it is at most as large where
    all have as many pixels.
    """
    return _named(_measures(sums[sums[:, 0] > 0]).mean(0))


def _measures(sums: Tensor) -> Tensor:
    """Turn sums (rows, 7) into RMSE, REL, log10 and the three deltas in percent (rows, 6)."""
    means = sums[:, 1:] / sums[:, :1]
    return torch.cat([means[:, :1].sqrt(), means[:, 1:3], 100 * means[:, 3:]], dim=1)


def _named(measures: Tensor) -> dict[str, float]:
    names = ("rmse", "rel", "log10", "delta1", "delta2", "delta3")
    return dict(zip(names, measures.tolist(), strict=True))
