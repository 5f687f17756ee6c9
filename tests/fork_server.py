"""Processes of their own that start in a moment: forked from one that has imported everything."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
from pathlib import Path
from typing import Any

import pytest

PRELOADED = ["color_predict", "gloo_group", "killed_run"]


def fork_server() -> Any:
    """The context whose processes have torch and this package already; one server for all tests."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as patch:
        # It looks for the modules there, not in pytest's path; what it cannot find it leaves out.
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        multiprocessing.forkserver.ensure_running()
    return context
