"""smp-camvid doctor."""

from __future__ import annotations

import json

import typer

from smp_camvid.commands.options import AsJson
from smp_camvid.errors import SmpCamvidError


def doctor(as_json: AsJson = False) -> None:
    """Versions, device, folders, credentials, disk and memory; exits with 1 on a problem."""
    from smp_camvid.report.doctor import doctor_view, examine
    from smp_camvid.report.printing import print_view

    diagnosis = examine()
    if as_json:
        typer.echo(json.dumps(diagnosis.document(), indent=2))
    else:
        print_view(doctor_view(diagnosis))
    if diagnosis.problems:
        raise SmpCamvidError(
            f"Something is in the way: {diagnosis.problems[0]}.",
            f"And {len(diagnosis.problems) - 1} more." if len(diagnosis.problems) > 1 else "",
        )
