"""Image classification: CIFAR-10, CIFAR-100, Tiny-ImageNet, drawings in their place, digits."""
