"""Methods that prune at initialisation, and controls.

They train the weights that they scored; none reinitialises them.
"""

from __future__ import annotations

from harness.registry import pruner
from harness.run import Run
from pruners import criteria
from pruners.channels.criteria import (
    crop_on_gates,
)
from pruners.channels.units import Channels
from pruners.distributions import erdos_renyi_kernel, per_layer
from pruners.functional_criteria import NTKSAP, Force, ProsPr
from pruners.schedules import geometric_steps, halving_steps
from pruners.weights import Weights


@pruner("random_u", title="Random-U", when="before", group="unstructured")
def random_u(run: Run, *, uniform: bool = False) -> None:
    """Remove random weights before training.

    The default draws from all layers at once, which gives them equal sparsities up to chance.
    ``uniform`` removes exactly the same fraction of every layer, as the official EarlyCroP code
    does in expectation.

    Args:
        run: the run.
        uniform: whether every layer loses the same fraction.
    """
    run.prune(Weights, criteria.random, run.sparsity, scope=per_layer if uniform else None)
    run.train()


@pruner("random_s", title="Random-S", when="before", group="structured")
def random_s(run: Run) -> None:
    """Remove the same ratio of random channels from every layer before training."""
    run.prune(Channels, criteria.random, run.sparsity, scope=per_layer)
    run.train()


@pruner("random_erk", title="Random-ERK", when="before", group="control", paper="arXiv:1911.11134")
def random_erk(run: Run) -> None:
    """Remove random weights before training, more of them where layers are large.

    The sparsity distribution is the Erdos-Renyi kernel of RigL (Evci et al. 2020,
    arXiv:1911.11134): a layer keeps weights in proportion to the sum of its dimensions.
    """
    run.prune(Weights, criteria.random, run.sparsity, scope=erdos_renyi_kernel)
    run.train()


@pruner(
    "magnitude_initial_u", title="Magnitude-U at initialisation", when="before", group="control"
)
def magnitude_initial_u(run: Run) -> None:
    """Remove the smallest weights before training, by their initial values alone.

    Score: ``|v|``, with one threshold for the whole network.
    """
    run.prune(Weights, criteria.magnitude, run.sparsity)
    run.train()


@pruner("snip", title="SNIP", when="before", needs=["gradients"], paper="arXiv:1810.02340")
def snip(run: Run) -> None:
    """Keep the weights whose removal changes the loss most.

    Score: ``|v . g|``, the connection sensitivity. SNIP, Lee et al. 2019, arXiv:1810.02340.

    Deviation: the original scores one batch, and reinitialises the weights after pruning.
    """
    run.prune(Weights, criteria.snip, run.sparsity)
    run.train()


@pruner(
    "snap",
    title="SNAP",
    when="before",
    needs=["gradients"],
    group="structured",
    paper="arXiv:2006.00896",
)
def snap(run: Run) -> None:
    """Keep the channels whose removal changes the loss most: SNIP on gates.

    Score: ``|dL/dc|``, which is ``|v . g|`` for gates ``c = 1``. SNAP, Verdenius et al. 2020,
    arXiv:2006.00896.
    """
    run.prune(Channels, criteria.snip, run.sparsity)
    run.train()


@pruner("snipit_u", title="SNIP-it", when="before", needs=["gradients"], paper="arXiv:2006.00896")
def snipit_u(run: Run, *, steps: int = 5) -> None:
    """Prune with SNIP, a little at a time.

    Score: that of ``snip``, computed again on the pruned network at each sparsity. The sparsities
    are ``rho - (rho - 1/2) / 2^i``, for ``i`` from 0 to ``steps``, and finally ``rho``. SNIP-it,
    Verdenius et al. 2020, arXiv:2006.00896.

    Args:
        run: the run.
        steps: how often the distance to the target is halved before the last pruning.
    """
    run.prune(Weights, criteria.snip, halving_steps(run.sparsity, steps))
    run.train()


@pruner(
    "snapit_s",
    title="SNAP-it",
    when="before",
    needs=["gradients"],
    group="structured",
    paper="arXiv:2006.00896",
)
def snapit_s(run: Run, *, steps: int = 5) -> None:
    """Prune with SNAP, a little at a time.

    Score: that of ``snap``, at the sparsities of ``snipit_u``. Verdenius et al. 2020,
    arXiv:2006.00896.

    Deviation: the intermediate sparsities are those of weights; the original counts channels.

    Args:
        run: the run.
        steps: how often the distance to the target is halved before the last pruning.
    """
    run.prune(Channels, criteria.snip, halving_steps(run.sparsity, steps))
    run.train()


@pruner(
    "force",
    title="FORCE",
    when="before",
    needs=["gradients"],
    paper="arXiv:2006.09081",
    limits={"rounds": "[1, inf)"},
)
def force(run: Run, *, rounds: int = 60, returning: bool = True) -> None:
    """Prune with SNIP in rounds, in which weights that an earlier round removed may return.

    Score: ``|v . g|`` for the dense weights ``v`` and the gradient of the pruned network, with
    equal ratios in all rounds. FORCE, de Jorge et al. 2021, arXiv:2006.09081.

    Deviation: the authors score one batch in each round. With 10 in place of their 60 rounds, the
    network of ``digits`` collapses at 99.5 %.

    Args:
        run: the run.
        rounds: how often the weights are scored.
        returning: whether removed weights may return; if not, this is Iterative SNIP of the same
            paper.
    """
    if returning:
        run.prune(Weights, Force(run.sparsity, rounds), run.sparsity)
    else:
        run.prune(Weights, criteria.snip, geometric_steps(run.sparsity, rounds))
    run.train()


@pruner(
    "prospr",
    title="ProsPr",
    when="before",
    needs=["second derivatives"],
    paper="arXiv:2202.08132",
    limits={"inner_steps": "[0, inf)", "inner_learning_rate": "(0, inf)"},
)
def prospr(run: Run, *, inner_steps: int = 3, inner_learning_rate: float = 0.1) -> None:
    """Keep the weights that the loss depends on most after a few steps of training.

    Score: ``|v . dL(v_M)/dv|``, where ``v_M`` are the weights after ``M`` steps of gradient
    descent. Training then starts from the initial weights. ProsPr, Alizadeh et al. 2022,
    arXiv:2202.08132.

    Deviation: the loss after these steps is that of all five scoring batches, where the authors
    take one.

    Args:
        run: the run.
        inner_steps: number of steps, each on one scoring batch; without any, this is SNIP.
        inner_learning_rate: learning rate of these steps.
    """
    run.prune(Weights, ProsPr(inner_steps, inner_learning_rate), run.sparsity)
    run.train()


@pruner(
    "hts",
    title="HTS",
    when="before",
    needs=["second derivatives"],
    paper="arXiv:2502.11450",
    limits={"draws": "[1, inf)"},
)
def hts(run: Run, *, draws: int = 2, removal: bool = False) -> None:
    """Keep the weights that the loss depends on most, to second order.

    Score: ``|v . g + v^2 h / 2|``, where ``h`` estimates the diagonal of the Hessian from products
    with random signs. With the authors' sign of ``v . g``, this is the change of the loss when
    ``v`` is doubled; when it is removed, the sign is the other. HTS, Gollini Navarrete et al. 2025,
    arXiv:2502.11450.

    Deviations: the original takes ten samples of each class with ten draws, divides the logits by
    200, and lets normalisation see data before scoring.

    Args:
        run: the run.
        draws: number of random vectors for each of the five scoring batches.
        removal: whether the first term has the sign of a removal.
    """
    run.prune(Weights, criteria.HTS(draws, removal), run.sparsity)
    run.train()


@pruner(
    "grasp", title="GraSP", when="before", needs=["second derivatives"], paper="arXiv:2002.07376"
)
def grasp(run: Run) -> None:
    """Keep the weights whose removal would weaken the gradient flow most.

    Score: ``v . H g``, with its sign: without ``v`` the flow ``|g|^2`` falls by ``2 v . H g``.
    GraSP, Wang et al. 2020, arXiv:2002.07376.

    Deviations: the original takes ten samples of each class, divides the logits by 200 and
    reinitialises linear layers for scoring. The official EarlyCroP code inverts the sign.
    """
    run.prune(Weights, criteria.grasp, run.sparsity)
    run.train()


@pruner("synflow", title="SynFlow", when="before", paper="arXiv:2006.05467")
def synflow(run: Run, *, rounds: int = 100) -> None:
    """Keep the weights that carry most of the synaptic flow, without any data.

    Score: ``v . dR/dv``, where ``R`` is the summed output of the network with all weights replaced
    by their magnitudes, for an input of ones. Round ``n`` prunes to ``1 - (1 - rho)^(n / rounds)``.
    SynFlow, Tanaka et al. 2020, arXiv:2006.05467.

    Args:
        run: the run.
        rounds: how many prunings the sparsity is spread over.
    """
    run.prune(Weights, criteria.synflow, geometric_steps(run.sparsity, rounds))
    run.train()


@pruner(
    "ntk_sap",
    title="NTK-SAP",
    when="before",
    needs=["gradients"],
    paper="arXiv:2304.02840",
    limits={"rounds": "[1, inf)", "epsilon": "(0, inf)"},
)
def ntk_sap(run: Run, *, rounds: int = 20, epsilon: float = 0.01) -> None:
    """Keep the weights that the spectrum of the tangent kernel depends on most, without any data.

    Score: ``|dR/dm|``, where ``R`` is how much the outputs change when the weights of a newly drawn
    network do, for random inputs. Each round draws another network and prunes further, at the
    sparsities of ``synflow``. NTK-SAP, Wang et al. 2023, arXiv:2304.02840.

    Deviations: a round draws one batch of the recipe's size; the authors use 20 to 100 rounds.
    Words cannot be drawn as normal numbers, so the inputs of a language model are those of a
    scoring batch, and its outputs log-probabilities.

    Args:
        run: the run.
        rounds: how many prunings the sparsity is spread over.
        epsilon: scale of the change of the weights.
    """
    run.prune(Weights, NTKSAP(epsilon), geometric_steps(run.sparsity, rounds))
    run.train()


@pruner(
    "crop_u", title="CroP-U", when="before", needs=["second derivatives"], paper="arXiv:2206.10451"
)
def crop_u(run: Run) -> None:
    """Keep the weights whose removal changes the gradient flow most.

    Score: ``|v . H g|``. Where GraSP maximises the gradient flow, CroP preserves it. Rachwan et
    al. 2022, arXiv:2206.10451.
    """
    run.prune(Weights, criteria.crop, run.sparsity)
    run.train()


@pruner(
    "crop_s",
    title="CroP-S",
    when="before",
    needs=["second derivatives"],
    group="structured",
    paper="arXiv:2206.10451",
)
def crop_s(run: Run, *, mixed: bool = False, before_norm: bool = False) -> None:
    """Keep the channels whose removal changes the gradient flow most: CroP on gates.

    Score: ``|H g|`` over all gates, which is ``|v . H g|`` for gates ``c = 1``. Rachwan et al.
    2022, arXiv:2206.10451.

    Deviation: the official code differs from the paper in two respects. Both are options.

    Args:
        run: the run.
        mixed: as in the code, score by ``|d/dc <g_W, g_W(c)>|``, the effect of a gate on the
            gradient flow of the weights, instead of that of the gates.
        before_norm: as in the code, put the gates before normalisation. Scoring then uses running
            statistics, because batch statistics would undo the gates.
    """
    run.prune(Channels, crop_on_gates(mixed, before_norm), run.sparsity)
    run.train()


@pruner(
    "cropit_u",
    title="CroPit-U",
    when="before",
    needs=["second derivatives"],
    paper="arXiv:2206.10451",
)
def cropit_u(run: Run, *, steps: int = 5) -> None:
    """Prune with CroP, a little at a time.

    Score: that of ``crop_u``, at the sparsities of ``snipit_u``. Rachwan et al. 2022,
    arXiv:2206.10451.

    Args:
        run: the run.
        steps: how often the distance to the target is halved before the last pruning.
    """
    run.prune(Weights, criteria.crop, halving_steps(run.sparsity, steps))
    run.train()


@pruner(
    "cropit_s",
    title="CroPit-S",
    when="before",
    needs=["second derivatives"],
    group="structured",
    paper="arXiv:2206.10451",
)
def cropit_s(run: Run, *, steps: int = 5, mixed: bool = False, before_norm: bool = False) -> None:
    """Prune with CroP-S, a little at a time; for the options see ``crop_s``.

    Score: that of ``crop_s``, at the sparsities of ``snipit_u``. Rachwan et al. 2022,
    arXiv:2206.10451.

    Deviation: the intermediate sparsities are those of weights; the original counts channels.

    Args:
        run: the run.
        steps: how often the distance to the target is halved before the last pruning.
        mixed: score by the effect of a gate on the gradient flow of the weights (``crop_s``).
        before_norm: put the gates before normalisation (``crop_s``).
    """
    run.prune(Channels, crop_on_gates(mixed, before_norm), halving_steps(run.sparsity, steps))
    run.train()
