"""Asymmetric Convolution Blocks for any PyTorch network: the training half of ACNet (Ding et al., ICCV 2019)."""

from torch import Tensor, nn


class ACB(nn.Module):
    """A d×d, a 1×d and a d×1 convolution, each with its batch norm, whose outputs are added.

    They are padded so that all windows share one centre: then one d×d convolution can compute the sum.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        d, pad = conv.kernel_size[0], int(conv.padding[0])
        self.square = branch(conv, (d, d), (pad, pad))
        self.horizontal = branch(conv, (1, d), (pad - d // 2, pad))
        self.vertical = branch(conv, (d, 1), (pad, pad - d // 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.square(x) + self.horizontal(x) + self.vertical(x)


def branch(conv: nn.Conv2d, kernel: tuple[int, int], padding: tuple[int, int]) -> nn.Sequential:
    """Returns a convolution like `conv` with another kernel, and its batch norm, whose shift replaces the bias."""
    stride = conv.stride[0], conv.stride[1]
    made = nn.Conv2d(conv.in_channels, conv.out_channels, kernel, stride, padding, groups=conv.groups, bias=False)
    return nn.Sequential(made, nn.BatchNorm2d(conv.out_channels))


def replace_convolutions(network: nn.Module) -> nn.Module:
    """Replaces each square convolution, and the batch norm behind it, if there is one, by an ACB."""
    previous: nn.Module | None = None
    for name, layer in network.named_children():
        if isinstance(layer, nn.Conv2d) and takes_arms(layer):
            setattr(network, name, ACB(layer))
        elif isinstance(layer, nn.BatchNorm2d) and isinstance(previous, nn.Conv2d) and takes_arms(previous):
            setattr(network, name, nn.Identity())
        else:
            replace_convolutions(layer)
        previous = layer
    return network


def takes_arms(conv: nn.Conv2d) -> bool:
    """Returns whether the kernel is square, has a centre, and is padded enough for thinner arms."""
    height, width = conv.kernel_size
    padded = isinstance(conv.padding, tuple) and min(conv.padding) >= height // 2
    return height == width > 1 and height % 2 == 1 and padded and conv.dilation == (1, 1)
