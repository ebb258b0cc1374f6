"""In how many steps to prune: sparsities of successive prunings, which end at the target.

`harness.run.Run.prune` takes such a list for its target. It scores the pruned network again before
each step. Or a method trains between the steps::

    for target in geometric_steps(run.sparsity, rounds=5):
        run.prune(Weights, magnitude, target)
        run.train(epochs=1)
"""

from __future__ import annotations


def equal_parts(steps: int, parts: int) -> list[int]:
    """Divide a training into parts whose lengths differ by one step at most.

    Eight steps in three parts are ``2, 3, 3``.

    Args:
        steps: the length of the training, in steps; 0 counts as 1.
        parts: into how many parts it is divided; no more than there are steps.
    """
    steps = max(1, steps)
    parts = min(parts, steps)
    return [steps * (n + 1) // parts - steps * n // parts for n in range(parts)]


def halving_steps(sparsity: float, steps: int = 5) -> list[float]:
    """Start at one half, halve the distance to the target ``steps`` times, and end at the target.

    ``k_i = rho - (rho - k_0) / 2^i`` with ``k_0 = 1/2``, the schedule of SNIP-it (Verdenius et al.
    2020, arXiv:2006.00896), CroPit and EarlyCroP. For a target of 0.98, five steps are
    ``0.5, 0.74, 0.86, 0.92, 0.95, 0.965, 0.98``.

    Deviation: ``k_0`` is half the target if the target is at most one half. The published code
    then starts above the target.

    Args:
        sparsity: the target ``rho``.
        steps: how often the distance is halved; 0 returns the target alone.
    """
    if steps == 0:
        return [sparsity]
    start = 0.5 if sparsity > 0.5 else sparsity / 2
    return [sparsity - (sparsity - start) / 2**i for i in range(steps + 1)] + [sparsity]


def geometric_steps(sparsity: float, rounds: int) -> list[float]:
    """Remove the same fraction of what is left in each round: ``1 - (1 - rho)^(n / rounds)``.

    The schedule of iterative magnitude pruning (Frankle and Carbin 2019, arXiv:1803.03635), and the
    exponential schedule of SynFlow (Tanaka et al. 2020, arXiv:2006.05467). For a target of 0.875,
    three rounds are ``0.5, 0.75, 0.875``.

    Args:
        sparsity: the target ``rho``.
        rounds: how many, at least one.
    """
    return [1 - (1 - sparsity) ** (n / rounds) for n in range(1, rounds)] + [sparsity]


def cubic_sparsity(sparsity: float, progress: float) -> float:
    """Return how sparse gradual pruning is at a moment: ``rho (1 - (1 - progress)^3)``.

    The schedule of Zhu and Gupta 2017 (arXiv:1710.01878) from a dense network on. For a target of
    0.8, the sparsity after a quarter, a half and the whole time is ``0.4625, 0.7, 0.8``.

    Args:
        sparsity: the target ``rho``.
        progress: the fraction of the time between the first and the last pruning that has passed.
    """
    return sparsity * (1 - (1 - progress) ** 3)
