"""Depth errors: the losses of training and scoring, and the six reported measures.

All of them are over the pixels of known depth. The measures are those of Eigen et al.
(arXiv:1406.2283), in two protocols. The official protocol pools all pixels of all images; the
other averages the measures of the images. Both use the same sums, so neither depends on how
images are put into batches.
"""

from __future__ import annotations

import torch
from torch import Tensor

SHARE_OF_LARGEST_ERROR = 0.2
"""Where the reverse Huber loss changes from linear to quadratic."""

LEAST_DEPTH = 1e-3
"""Smallest prediction in metres: a network may predict 0 or less, which has no logarithm."""

DELTAS = (1.25, 1.25**2, 1.25**3)


def is_known(depths: Tensor) -> Tensor:
    """Return where the depth is known: a finite number above 0."""
    return (depths > 0) & depths.isfinite()


# Losses


def berhu(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return the reverse Huber loss (Laina et al., arXiv:1606.00373, equation 1).

    B(x) = |x| where |x| <= c, and (x^2 + c^2) / 2c beyond. c is a fifth of the largest error in
    this batch, taken as a constant.

    Args:
        predicted: depths in metres.
        truth: depths of the same shape; unknown where 0, negative, NaN or infinite.
    """
    errors = _known_errors(predicted, truth).abs()
    # If all errors are 0, so is c, and 0 / 0 would have no gradient.
    c = (SHARE_OF_LARGEST_ERROR * errors.detach().max()).clamp(min=1e-12)
    quadratic = (errors.square() + c.square()) / (2 * c)
    return _mean(torch.where(errors <= c, errors, quadratic), truth)


def mean_squared_error(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return the mean squared error in square metres; for the arguments see `berhu`."""
    return _mean(_known_errors(predicted, truth).square(), truth)


def _known_errors(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return the errors, 0 where the depth is unknown."""
    # Selected instead of multiplied: 0 * NaN is NaN.
    return torch.where(is_known(truth), predicted - truth, 0.0)


def _mean(errors: Tensor, truth: Tensor) -> Tensor:
    """Return the mean over the pixels of known depth, 0 if there are none."""
    return errors.sum() / is_known(truth).sum().clamp(min=1)


LOSSES = {"berhu": berhu, "mean_squared_error": mean_squared_error}
"""The losses by the values of the setting ``scoring_loss``."""


# Measures


def image_sums(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return sums over the pixels of known depth of each image.

    Args:
        predicted: depths in metres (images, height, width).
        truth: depths in metres of the same shape; unknown where 0, negative, NaN or infinite.

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
    """Return the measures over all pixels of all images, NaN if no depth is known.

    Args:
        sums: the results of `image_sums` for all images.
    """
    return _named(_measures(sums.sum(0, keepdim=True))[0])


def averaged(sums: Tensor) -> dict[str, float]:
    """Return the mean of the images' measures, NaN if no image counts.

    Images without known depths do not count. The mean of the images' RMSE is not the RMSE of all
    pixels: it is at most as large if all images have equally many known pixels.

    Args:
        sums: the results of `image_sums` for all images.
    """
    return _named(_measures(sums[sums[:, 0] > 0]).mean(0))


def _measures(sums: Tensor) -> Tensor:
    """Turn sums (rows, 7) into RMSE, REL, log10 and the three deltas in percent (rows, 6)."""
    means = sums[:, 1:] / sums[:, :1]
    return torch.cat([means[:, :1].sqrt(), means[:, 1:3], 100 * means[:, 3:]], dim=1)


def _named(measures: Tensor) -> dict[str, float]:
    names = ("rmse", "rel", "log10", "delta1", "delta2", "delta3")
    return dict(zip(names, measures.tolist(), strict=True))
