"""Draws docs/pictures/unet.svg: figure 1 of the paper, with the numbers of our own network.

    python docs/figures/unet.py

The network of models/vanilla.py runs once over a 572x572 picture (shapes only, on torch's meta
device), hooks write down every map, and the maps are drawn.  No number is written here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from drawing import Drawing, Point
from torch import Tensor, nn

from smp_camvid.models.vanilla import VanillaUNet

SIZE = 572
CONV, COPY, POOL, UP, HEAD = "#2b6cb0", "#8a94a0", "#c53030", "#2f855a", "#0e7c86"
MAP, COPIED = "#bcd7f2", "#eceff3"
ARROWS = (
    (CONV, "3x3 convolution, ReLU"), (COPY, "copy and crop"), (POOL, "2x2 max pooling"),
    (UP, "2x2 up-convolution"), (HEAD, "1x1 convolution"),
)  # fmt: skip


@dataclass(frozen=True)
class Map:
    """A feature map: its channels, and its side in pixels."""

    channels: int
    side: int
    copied: int = 0
    """How many of the channels, the first ones, were copied from the contracting path."""


@dataclass
class Trace:
    """The maps of one forward pass, by level; level 0 is the picture's own scale."""

    down: list[list[Map]] = field(default_factory=list)
    up: list[list[Map]] = field(default_factory=list)
    """From the lowest concatenation to the highest, whose last map is the logits."""


def trace(network: VanillaUNet, side: int = SIZE) -> Trace:
    """Runs `network` once and returns every map between its layers."""
    found = Trace()
    handles = []

    def map_of(tensor: Tensor, copied: int = 0) -> Map:
        return Map(tensor.shape[1], tensor.shape[-1], copied)

    def enters(levels: list[list[Map]]) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            copied = inputs[0].shape[1] // 2 if levels is found.up else 0
            levels.append([map_of(inputs[0], copied)])

        return hook

    def leaves(levels: list[list[Map]]) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            levels[-1].append(map_of(output))

        return hook

    sides = ((network.encoder.levels, found.down), (network.decoder.levels, found.up))
    for levels, maps in sides:
        for level in levels:
            handles.append(level.register_forward_pre_hook(enters(maps)))
            handles += [
                layer.register_forward_hook(leaves(maps))
                for layer in level
                if isinstance(layer, nn.Conv2d)
            ]
    handles.append(network.segmentation_head.register_forward_hook(leaves(found.up)))
    channels = network.encoder.levels[0][0].in_channels
    with torch.no_grad():
        network.eval()(torch.zeros(1, channels, side, side, device="meta"))
    for handle in handles:
        handle.remove()
    return found


def network_on_paper() -> VanillaUNet:
    """The network with its defaults, without memory for its weights."""
    with torch.device("meta"):
        return VanillaUNet()


GAP, ROW_GAP, LEFT = 32, 30, 28


def width_of(one: Map) -> float:
    return 4 + 1.25 * one.channels**0.5


def height_of(one: Map) -> float:
    return 16 + 0.2 * one.side


def rows_of(down: Sequence[Sequence[Map]]) -> list[float]:
    """The middle of each level, top to bottom; above a box there is a number, and below."""
    middles, y = [], 18.0
    for level in down:
        tall = max(map(height_of, level))
        middles.append(y + 20 + tall / 2)
        y += 20 + tall + 20 + ROW_GAP
    return middles


class UShape:
    """Draws a trace: left to right, each level where the one before it ended."""

    def __init__(self, found: Trace) -> None:
        self.found = found
        self.rows = rows_of(found.down)
        words = "The maps of a U-Net from left to right, down and up again: " + ", ".join(
            f"{one.channels} channels of {one.side}x{one.side}"
            for level in (*found.down, *found.up)
            for one in level
        )
        self.drawing = Drawing(1112, self.rows[-1] + 70, "The U-Net of this package", words)

    def draw(self) -> Drawing:
        x: float = LEFT
        ends: list[Point] = []  # the right side of each level going down, at its middle
        for number, level in enumerate(self.found.down):
            x = self.level(level, x, self.rows[number])
            ends.append((x, self.rows[number]))
            if number + 1 < len(self.found.down):
                x = self.down_arrow(level[-1], self.found.down[number + 1][0], x, number)
        before = self.found.down[-1][-1]
        for level, number in zip(self.found.up, range(len(ends) - 2, -1, -1), strict=True):
            x = self.up_arrow(before, level[0], x, number)
            self.copy_arrow(ends[number], x, self.found.down[number][-1], level[0])
            x = self.level(level, x, self.rows[number], last=number == 0)
            before = level[-1]
        small = {"fill": "#52606d", "font_size": 14}
        picture, logits = self.found.down[0][0], self.found.up[-1][-1]
        self.drawing.text(LEFT + 3, self.rows[0] + height_of(picture) / 2 + 34, "picture", **small)
        under = self.rows[0] + height_of(logits) / 2 + 34
        self.drawing.text(x - width_of(logits) / 2, under, "logits", **small)
        self.legend()
        return self.drawing

    def level(self, maps: Sequence[Map], x: float, middle: float, last: bool = False) -> float:
        """Boxes and the arrows between them; returns the right side of the last box."""
        for number, one in enumerate(maps):
            if number:
                color = HEAD if last and number == len(maps) - 1 else CONV
                self.drawing.arrow((x + 3, middle), (x + GAP - 3, middle), color)
                x += GAP
            x = self.one_map(one, x, middle)
        return x

    def one_map(self, one: Map, x: float, middle: float) -> float:
        width, height = width_of(one), height_of(one)
        top = middle - height / 2
        self.drawing.box(x, top, width, height, fill=MAP)
        if one.copied:
            part = width * one.copied / one.channels
            self.drawing.box(x, top, part, height, fill=COPIED)
        self.drawing.text(x + width / 2, top - 6, str(one.channels))
        self.drawing.text(x + width / 2, top + height + 16, f"{one.side}²", font_size=14)
        return x + width

    def down_arrow(self, upper: Map, lower: Map, right: float, number: int) -> float:
        """Returns the left side of the map below."""
        x = right - width_of(upper) / 2
        start = self.rows[number] + height_of(upper) / 2 + 22
        end = self.rows[number + 1] - height_of(lower) / 2 - 23
        self.drawing.arrow((x, start), (x, end), POOL)
        return x - width_of(lower) / 2

    def up_arrow(self, lower: Map, upper: Map, right: float, number: int) -> float:
        """Returns the left side of the map above, whose right half comes from below."""
        x = right - width_of(lower) / 2
        left = x - width_of(upper) * 0.75
        start = self.rows[number + 1] - height_of(lower) / 2 - 23
        end = self.rows[number] + height_of(upper) / 2 + 22
        self.drawing.arrow((x, start), (x, end), UP)
        return left

    def copy_arrow(self, start: Point, x: float, copied: Map, joined: Map) -> None:
        self.drawing.arrow((start[0] + 3, start[1]), (x - 3, start[1]), COPY)
        words = f"{copied.side}² to {joined.side}²"
        self.drawing.text((start[0] + x) / 2, start[1] - 8, words, fill="#52606d", font_size=14)

    def legend(self) -> None:
        x, y = 30.0, self.rows[-1] - 90
        for color, words in ARROWS:
            self.drawing.arrow((x, y), (x + 34, y), color)
            self.drawing.text(x + 44, y + 5, words, text_anchor="start")
            y += 25
        self.drawing.text(
            x, y + 8, "above: channels; below: height and width", text_anchor="start",
            font_size=14, fill="#52606d",
        )  # fmt: skip


if __name__ == "__main__":
    print(UShape(trace(network_on_paper())).draw().save("unet.svg"))
