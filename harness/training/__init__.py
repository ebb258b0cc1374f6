"""Training a network: the loop, the schedule, the optimiser, the precision, the evaluation."""
