"""Recipes: layers, origins, and every problem at once."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from smp_camvid import recipe
from smp_camvid.errors import UsageError
from smp_camvid.recipe import Recipe, TrainConfig, check_section, parse_set, resolve


@pytest.mark.parametrize("name", recipe.recipe_names())
def test_shipped_recipes_are_valid_and_say_what_they_are(name: str) -> None:
    assert resolve(name).recipe.description


def test_the_promised_recipes_ship() -> None:
    promised = {
        "base", "vanilla", "ronneberger-2015", "notebook", "unet-scratch", "unet-resnet34",
        "unet-lite0", "quick",
    }  # fmt: skip
    assert promised <= set(recipe.recipe_names())


def test_the_notebook_recipe_is_the_configuration_the_project_began_as() -> None:
    r = resolve("notebook").recipe
    assert (r.data.classes, r.data.size, r.train.batch_size) == ("32", (224, 224), 16)
    assert (r.train.optimizer, r.train.lr, r.model.options["padding"]) == ("adam", 2e-4, "same")


def test_the_paper_recipe_is_the_papers() -> None:
    r = resolve("ronneberger-2015").recipe
    assert (r.train.optimizer, r.train.momentum, r.loss.border_w0) == ("sgd", 0.99, 10)
    assert (r.model.options["norm"], r.model.options["padding"]) == ("none", "valid")
    assert r.augment[0].name == "ElasticDeformation"


def test_later_layers_win_and_origins_say_which() -> None:
    resolved = resolve("vanilla", [("train.epochs", 3)])
    assert resolved.recipe.train.epochs == 3
    assert resolved.origins["train.epochs"] == "option"
    assert resolved.origins["train.schedule"] == "vanilla"
    assert resolved.origins["train.lr"] == "base"
    assert resolved.origins["train.seed"] == "default"


def test_written_out_it_reads_back_equal(tmp_path: Path) -> None:
    for name in recipe.recipe_names():
        first = resolve(name, [("train.seed", 7)]).recipe
        file = tmp_path / f"{name}.toml"
        file.write_text(first.to_toml())
        assert resolve(str(file)).recipe == first


def test_all_three_mistakes_are_listed(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[train]\nepoch = 3\nlr = -1\n[model]\narch = "unett"\n')
    with pytest.raises(UsageError) as caught:
        resolve(str(file))
    text = str(caught.value)
    assert "3 problems" in text
    assert "train.epoch: unknown key. Did you mean 'epochs'?" in text
    assert "train.lr: input should be greater than 0, not -1." in text
    assert "model.arch: no architecture 'unett'. Did you mean 'unet'?" in text


def test_constructor_options_are_checked_by_architecture() -> None:
    with pytest.raises(UsageError, match="'base_channels'"):
        resolve("vanilla", [("model.base_chanels", 16)])
    with pytest.raises(UsageError, match="vanilla has no such option"):
        resolve("vanilla", [("model.encoder_name", "resnet34")])
    with pytest.raises(UsageError, match="set by data"):
        resolve("vanilla", [("model.classes", 3)])
    assert resolve("base", [("model.arch", "fpn"), ("model.decoder_dropout", 0.1)])


def test_another_architecture_drops_the_options_of_the_former() -> None:
    r = resolve("vanilla", [("model.arch", "unet"), ("model.encoder_name", "resnet18")]).recipe
    assert r.model.options == {"encoder_name": "resnet18"}


def test_none_means_no_encoder_weights() -> None:
    r = resolve("unet-lite0", [("model.encoder_weights", "none")]).recipe
    assert r.model.options["encoder_weights"] is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.epochs=3", ("train.epochs", 3)),
        ("train.lr=1e-4", ("train.lr", 1e-4)),
        ("model.norm=batch", ("model.norm", "batch")),
        ("data.size=[180, 240]", ("data.size", [180, 240])),
        ("train.save_plots=false", ("train.save_plots", False)),
        ("train.save_dir=/a=b", ("train.save_dir", "/a=b")),
    ],
)
def test_set_reads_toml_values(text: str, expected: tuple[str, object]) -> None:
    assert parse_set(text) == expected


@pytest.mark.parametrize("text", ["train.epochs", "=3", ""])
def test_set_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="key=value"):
        parse_set(text)


def test_extends_is_one_level_deep(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('extends = "vanilla"\n')
    with pytest.raises(UsageError, match="one level"):
        resolve(str(tmp_path / "a.toml"))
    (tmp_path / "b.toml").write_text(f'extends = "{tmp_path / "c.toml"}"\n[train]\nepochs = 2\n')
    (tmp_path / "c.toml").write_text('extends = ""\n[train]\nepochs = 1\nlr = 0.5\n')
    r = resolve(str(tmp_path / "b.toml"))
    assert (r.recipe.train.epochs, r.recipe.train.lr) == (2, 0.5)
    assert (r.origins["train.lr"], r.origins["train.epochs"]) == ("c", "b")
    assert r.recipe.name == "b"


def test_unreadable_recipes_are_usage_errors(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("[train\n")
    for name in (str(tmp_path / "broken.toml"), str(tmp_path / "absent.toml"), "vanila"):
        with pytest.raises(UsageError):
            resolve(name)


def test_every_field_says_what_it_is() -> None:
    for section in ("model", "data", "loss", "train"):
        annotation = Recipe.model_fields[section].annotation
        for name in annotation.model_fields:  # type: ignore[union-attr]
            assert recipe.field_help(f"{section}.{name}"), f"{section}.{name}"


def test_trainer_options_are_the_recipes() -> None:
    assert check_section(TrainConfig(), {"epochs": 2}).epochs == 2
    with pytest.raises(UsageError, match="Did you mean 'epochs'"):
        check_section(TrainConfig(), {"epoch": 2})


def test_recipes_use_only_known_toml() -> None:
    for name in recipe.recipe_names():
        tomllib.loads(recipe.find_recipe(name).read_text())
