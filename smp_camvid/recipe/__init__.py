"""A run is a recipe: TOML, checked whole before anything is read or built.

A recipe states its difference from the one it extends (`base` unless it says otherwise, one
level deep); command-line options come last.  Each field is declared, documented and given its
default in sections.py and train_section.py and nowhere else: the command line takes its help
texts from these docstrings.
"""

from smp_camvid.recipe.files import find_recipe, parse_set, read_toml, recipe_folder, recipe_names
from smp_camvid.recipe.layers import Resolved, resolve
from smp_camvid.recipe.problems import NOT_OPTIONS, FindProblems, check, check_section
from smp_camvid.recipe.sections import DataConfig, LossConfig, ModelConfig, Size, Step
from smp_camvid.recipe.train_section import TrainConfig
from smp_camvid.recipe.whole import Recipe, field_help, flat_values, value_of

__all__ = [
    "NOT_OPTIONS",
    "DataConfig",
    "FindProblems",
    "LossConfig",
    "ModelConfig",
    "Recipe",
    "Resolved",
    "Size",
    "Step",
    "TrainConfig",
    "check",
    "check_section",
    "field_help",
    "find_recipe",
    "flat_values",
    "parse_set",
    "read_toml",
    "recipe_folder",
    "recipe_names",
    "resolve",
    "value_of",
]
