"""Training a network: loop, schedule, optimizer, precision, evaluation."""
