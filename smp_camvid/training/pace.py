"""How long an epoch will take, told once after the first steps."""

from __future__ import annotations

from smp_camvid.models.network import Network
from smp_camvid.recipe import Recipe

SLOW_EPOCH_SECONDS = 600
STEPS_BEFORE_ESTIMATE = 3


class Pace:
    """Says once that epochs will be slow, with the command of a lighter run on the same data."""

    def __init__(self, network: Network, recipe: Recipe) -> None:
        self.arch, self.recipe = network.config.get("arch"), recipe
        self.told = False

    def notice(self, step: int, steps: int, seconds: float) -> str:
        """A sentence, or nothing.  `step` of `steps` are trained since `seconds` ago."""
        if self.told or step < STEPS_BEFORE_ESTIMATE:
            return ""
        self.told = True
        expected = seconds / step * steps
        if expected <= SLOW_EPOCH_SECONDS:
            return ""
        sentence = f"An epoch will take about {expected / 60:.0f} minutes here."
        if self.recipe.name == "unet-lite0":
            return sentence
        return f"{sentence} Lighter: smp-camvid train {self._lighter()}"

    def _lighter(self) -> str:
        data = self.recipe.data
        words = (
            ["--arch vanilla --set model.base_channels=16 --size 180x240"]
            if self.arch == "vanilla"
            else ["--recipe unet-lite0"]
        )
        if data.path != "auto":
            words.append(f"--data {data.path}")
        if data.classes != "11":
            words.append(f"--classes {data.classes}")
        return " ".join(words)
