"""MNIST and Fashion-MNIST, and scikit-learn's digits in their place."""
