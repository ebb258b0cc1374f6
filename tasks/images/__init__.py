"""Image classification: CIFAR-10, CIFAR-100 and Tiny-ImageNet, and drawings in their place."""
