"""What training and scores minimise, over the pixels whose depth is known."""

from __future__ import annotations

import torch
from torch import Tensor

SHARE_OF_LARGEST_ERROR = 0.2
"""Where the reverse Huber loss turns from linear to quadratic."""


def is_known(depths: Tensor) -> Tensor:
    """Tell the pixels whose depth is known: more than 0, and a finite number."""
    return (depths > 0) & depths.isfinite()


def berhu(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return the reverse Huber loss (Laina et al., arXiv:1606.00373, equation 1).

    B(x) = |x| where |x| <= c, and (x^2 + c^2) / 2c beyond, with c a fifth of the largest error in
    this batch, taken as a constant.

    Args:
        predicted: depths in metres.
        truth: depths of the same shape; 0, less, NaN or infinite where unknown.
    """
    errors = _known_errors(predicted, truth).abs()
    # Where all errors are 0, so is c, and 0 / 0 would have no gradient.
    c = (SHARE_OF_LARGEST_ERROR * errors.detach().max()).clamp(min=1e-12)
    quadratic = (errors.square() + c.square()) / (2 * c)
    return _mean(torch.where(errors <= c, errors, quadratic), truth)


def mean_squared_error(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return the mean squared error in square metres; arguments as `berhu`."""
    return _mean(_known_errors(predicted, truth).square(), truth)


def _known_errors(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return the errors, 0 where the depth is unknown."""
    # Selected and not multiplied: 0 * NaN is NaN.
    return torch.where(is_known(truth), predicted - truth, 0.0)


def _mean(errors: Tensor, truth: Tensor) -> Tensor:
    """Return the mean over the pixels whose depth is known, 0 if there are none."""
    return errors.sum() / is_known(truth).sum().clamp(min=1)


LOSSES = {"berhu": berhu, "mean_squared_error": mean_squared_error}
"""By the names that settings use."""
