"""The domains: one folder each with data, model, loss, metric and recipe."""
