r"""A network of your own for a folder of images with a subfolder for each class.

If the folder is ``leaves`` and has three classes::

    python -m harness run --task images --pruner crop_s --budget macs=0.5 \
        --set folder=leaves --set model=your_own_model.py:make_model
"""

from torch import nn

CLASSES = 3


def make_model() -> nn.Module:
    """Return a network that takes colour images of any size and returns logits."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, CLASSES),
    )
