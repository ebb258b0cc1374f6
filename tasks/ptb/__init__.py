"""Language modelling with a pointer sentinel mixture model."""
