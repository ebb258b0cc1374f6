"""The methods of the literature, each a short program over a run.

Each module holds those that prune at one time: never, before training, early in training, during
training, after training. A method in two variants is a pair: U removes single weights, S whole
channels.

Notation: ``v`` is a variable, that is a weight, or the gate ``c = 1`` of a channel; ``g`` is the
gradient of the training loss and ``H`` its Hessian, both summed over the scoring batches; ``rho``
is the target sparsity, the fraction of the prunable weights that is removed.

All methods deviate from their papers in the same four respects, so that they can be compared:
every method gets the same data, learning-rate schedule and budget (LTR alone exceeds it); scores
use five batches of training data (the official EarlyCroP code takes test data); biases and
normalisation parameters are never pruned; and the gate of a channel comes after normalisation,
one gate for all coupled channels. Each method lists its further deviations.
"""
