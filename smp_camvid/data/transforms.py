"""Augmentation: albumentations by name, and the elastic deformation of the U-Net paper.

Each sample is drawn from (run seed, epoch, index) and nothing else, so neither the number of
workers nor the order of frames changes it, and resuming needs no generator state.
"""

from __future__ import annotations

import inspect
import os
import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from smp_camvid.data.classes import VOID
from smp_camvid.data.crops import Augmented, Crop, Picture, Rarity, Weights, cut
from smp_camvid.errors import UsageError, did_you_mean

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the network
import albumentations as A

Step: TypeAlias = Mapping[str, Any]

# Resizing takes INTER_NEAREST_EXACT, which does not shift; warps know only INTER_NEAREST,
# which there has no shift to begin with.
_MASK_INTERPOLATIONS = (cv2.INTER_NEAREST_EXACT, cv2.INTER_NEAREST)


class ElasticDeformation(A.DualTransform):  # type: ignore[misc]
    """Smooth deformation after Ronneberger et al. 2015, section 3.1.

    Random displacement vectors on a coarse `grid` x `grid` over the frame, each coordinate
    normal with standard deviation `sigma` pixels; per-pixel displacements by bicubic
    interpolation.  Frames are mirrored at the border, labels become void there.
    """

    _targets = (A.core.type_definitions.Targets.IMAGE, A.core.type_definitions.Targets.MASK)

    def __init__(self, sigma: float = 10.0, grid: int = 3, p: float = 1.0) -> None:
        super().__init__(p=p)
        if sigma < 0 or grid < 2:
            raise ValueError("sigma must be at least 0 and grid at least 2")
        self.sigma = sigma
        self.grid = grid

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        height, width = params["shape"][:2]
        coarse = self.random_generator.normal(0, self.sigma, (2, self.grid, self.grid))
        rows, columns = _bicubic(height, self.grid), _bicubic(width, self.grid)
        dy, dx = rows @ coarse @ columns.T  # [2, H, W]
        y, x = np.mgrid[:height, :width]
        return {"map_x": (x + dx).astype(np.float32), "map_y": (y + dy).astype(np.float32)}

    def apply(self, img: Picture, map_x: Weights, map_y: Weights, **_: Any) -> Any:
        return cv2.remap(img, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)

    def apply_to_mask(self, mask: Picture, map_x: Weights, map_y: Weights, **_: Any) -> Any:
        return cv2.remap(
            mask, map_x, map_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=VOID
        )


@lru_cache(maxsize=8)
def _bicubic(length: int, points: int) -> npt.NDArray[np.float64]:
    """`[length, points]`: weights of cubic convolution (Keys 1981, a = -1/2).

    The points lie evenly from the first pixel to the last; beyond them the outer ones repeat.
    """
    at = np.linspace(0, points - 1, length)
    weights = np.zeros((length, points))
    for offset in range(-1, 3):
        point = np.floor(at).astype(int) + offset
        t = np.abs(at - point)
        inner = 1.5 * t**3 - 2.5 * t**2 + 1
        outer = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
        weight = np.where(t <= 1, inner, np.where(t < 2, outer, 0))
        np.add.at(weights, (np.arange(length), point.clip(0, points - 1)), weight)
    return weights


class Augmentation:
    """Steps in order, then padding and a random crop (`crops.cut`), of `size` unless told else.

    `rarity` is that of the labels' classes, for crops that are to lie on a rare one.
    """

    def __init__(
        self, steps: Sequence[Step], size: tuple[int, int], rarity: Rarity | None = None
    ) -> None:
        self.steps = [dict(step) for step in steps]
        self.size, self.rarity = size, rarity
        self._compose = _compose(self.steps)

    def __getstate__(self) -> dict[str, Any]:
        """What it is made from: not every albumentations class can be pickled."""
        return {"steps": self.steps, "size": self.size, "rarity": self.rarity}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __call__(
        self,
        image: Picture,
        label: Picture,
        seed: tuple[int, int, int],
        weight: Weights | None = None,
        crop: Crop | None = None,
    ) -> Augmented:
        """uint8 `[h, w, 3]`, uint8 `[h, w]`, float32 `[h, w]` or None -> the same, cropped.

        `seed` is (run seed, epoch, index).  Weights are 0 wherever the label is void.
        """
        rng = np.random.default_rng(seed)
        if self.steps:
            # set_random_seed would give every step the same generator state, and with it the
            # same first draw: steps of equal p would always fire together.
            self._compose.set_random_state(rng, random.Random(int(rng.integers(1 << 62))))
            image, label, weight = _apply(self._compose, image, label, weight)
        return cut(image, label, weight, crop or Crop(self.size), rng, self.rarity)

    def check(self, image: Picture, label: Picture) -> None:
        """Applies every step once to a frame of the dataset, so that what cannot work stops here.

        Raises UsageError naming the step.
        """
        for number, step in enumerate(self.steps, start=1):
            alone = _compose([{**step, "p": 1.0}])
            alone.set_random_state(np.random.default_rng(0), random.Random(0))
            try:
                image_, label_, _ = _apply(alone, image, label, None)
            except Exception as error:
                # albumentations raises whatever its numpy code comes across
                raise _cannot(number, step, str(error)) from error
            fits = image_.dtype == np.uint8 and image_.shape == (*label_.shape, 3)
            if not fits or label_.dtype != np.uint8:
                what = f"it makes {image_.dtype} {list(image_.shape)} of a uint8 RGB frame"
                raise _cannot(number, step, what)


def build_augmentation(
    steps: Sequence[Step], size: tuple[int, int], rarity: Rarity | None = None
) -> Augmentation:
    """Builds a recipe's steps: `{"name": "HorizontalFlip", "p": 0.5}`, in order.

    `name` is an albumentations class or ElasticDeformation; OneOf, SomeOf and Sequential take a
    list of steps as `transforms`.  Labels are sampled by nearest neighbour and filled with void.
    Raises UsageError for an unknown name or argument.
    """
    return Augmentation(steps, size, rarity)


def _compose(steps: Sequence[Step]) -> Any:
    transforms = [_transform(step, f"augment {i}") for i, step in enumerate(steps, start=1)]
    return A.Compose(transforms, additional_targets={"weight": "mask"})


def _apply(compose: Any, image: Picture, label: Picture, weight: Weights | None) -> Augmented:
    weights = {} if weight is None else {"weight": weight}
    found = compose(image=image, mask=label, **weights)
    return found["image"], found["mask"], found.get("weight")


# --- building one step -----------------------------------------------------------------------


def _transform(step: Step, where: str) -> Any:
    arguments = dict(step)
    name = arguments.pop("name", None)
    known = _known()
    if name not in known:
        raise UsageError(
            f"{where}: there is no augmentation {name!r}. {did_you_mean(str(name), known)}".strip(),
            "A step is named after a class of albumentations, or ElasticDeformation.",
        )
    accepted = _parameters(known[name])
    for argument in arguments:
        if argument not in accepted:
            guess = did_you_mean(argument, accepted) or f"It takes {', '.join(accepted)}."
            raise UsageError(f"{where}: {name} has no argument {argument!r}. {guess}")
    if "transforms" in arguments:
        inner = enumerate(arguments["transforms"], start=1)
        arguments["transforms"] = [_transform(s, f"{where}.{i}") for i, s in inner]
    if "fill_mask" in accepted:
        arguments["fill_mask"] = VOID
    return _instance(known[name], arguments, "mask_interpolation" in accepted, where)


def _instance(kind: Any, arguments: dict[str, Any], interpolates: bool, where: str) -> Any:
    for interpolation in _MASK_INTERPOLATIONS:
        extra = {"mask_interpolation": interpolation} if interpolates else {}
        try:
            return kind(**{**arguments, **extra})
        except (TypeError, ValueError) as error:
            refused = "mask_interpolation" in str(error)
            if not refused or interpolation == _MASK_INTERPOLATIONS[-1]:
                raise UsageError(
                    f"{where}: {kind.__name__} refuses this: {_reason(error)}"
                ) from error
    raise AssertionError("unreachable")


def _reason(error: Exception) -> str:
    """Pydantic's lines in one, without the pointer to its website."""
    lines = (line.strip() for line in str(error).splitlines())
    return "; ".join(line for line in lines if line and "errors.pydantic.dev" not in line)


@lru_cache(maxsize=1)
def _known() -> dict[str, Any]:
    bases = (A.BasicTransform, A.BaseCompose)
    found = {
        name: kind
        for name, kind in vars(A).items()
        if inspect.isclass(kind) and issubclass(kind, bases) and not inspect.isabstract(kind)
    }
    return {**found, "ElasticDeformation": ElasticDeformation}


def _parameters(kind: Any) -> list[str]:
    parameters = inspect.signature(kind.__init__).parameters.values()
    return [p.name for p in parameters if p.name != "self" and p.kind is not p.VAR_KEYWORD]


def _cannot(number: int, step: Step, reason: str) -> UsageError:
    return UsageError(
        f"augment {number}: {step.get('name')} cannot be applied to the frames: {reason}."
    )
