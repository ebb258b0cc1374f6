"""In how many steps to prune: the sparsities of successive events, ending at the target."""

from __future__ import annotations


def halving_steps(sparsity: float, steps: int = 5) -> list[float]:
    """Start at one half, halve the distance to the target ``steps`` times, and end at the target.

    With no steps the target is reached at once.

    The rule of SNIP-it (Verdenius et al. 2020, arXiv:2006.00896), CroPit and EarlyCroP:
    ``k_i = rho - (rho - k_0) / 2^i``. Deviation: for a target of at most one half, which the
    published code approaches from above, ``k_0`` is half the target.
    """
    if steps == 0:
        return [sparsity]
    start = 0.5 if sparsity > 0.5 else sparsity / 2
    return [sparsity - (sparsity - start) / 2**i for i in range(steps + 1)] + [sparsity]


def geometric_steps(sparsity: float, rounds: int) -> list[float]:
    """Remove the same fraction of what is left in each round: ``1 - (1 - rho)^(n / rounds)``.

    The rule of iterative magnitude pruning (Frankle and Carbin 2019, arXiv:1803.03635), and the
    exponential schedule of SynFlow (Tanaka et al. 2020, arXiv:2006.05467).
    """
    return [1 - (1 - sparsity) ** (n / rounds) for n in range(1, rounds)] + [sparsity]
