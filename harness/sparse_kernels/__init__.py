"""Sparse kernels for masked layers.

    choice = choose_kernels(model, masks, call)
    with SparseExecution(model, masks, choice.layers, choice.contiguous) as execution:
        ...
        execution.update(new_masks)
        SparseSteps(model, new_masks).step(optimizer)

Without structure, zeros make a network faster only where kernels skip them. On a CPU that is the
product of a matrix in compressed sparse rows with dense activations, by torch and MKL.
"""

from harness.sparse_kernels.choice import CLEARLY_FASTER, Choice, choose_kernels, ratio_of_steps
from harness.sparse_kernels.execution import DENSE, SPARSE_2_4, SPARSE_CSR, SparseExecution
from harness.sparse_kernels.optimization import SparseSteps

__all__ = [
    "CLEARLY_FASTER",
    "DENSE",
    "SPARSE_2_4",
    "SPARSE_CSR",
    "Choice",
    "SparseExecution",
    "SparseSteps",
    "choose_kernels",
    "ratio_of_steps",
]
