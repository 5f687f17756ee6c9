"""Where the `kaggle` client looks for credentials, and what keeps it from using them.

The client's own rule (2.2), repeated without importing it, because its import signs in at once:
an access token, from $KAGGLE_API_TOKEN (a token, or a file that holds one), else from
~/.kaggle/access_token; then name and key, from kaggle.json in its one configuration folder with
the variables laid over it; then what `kaggle auth login` has written.

Nothing here is sent or tried out, and no value of a credential is ever returned.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TOKEN = "KAGGLE_API_TOKEN"
_NAME, _KEY = "KAGGLE_USERNAME", "KAGGLE_KEY"


@dataclass(frozen=True)
class Sight:
    """What is in sight: names of variables and paths of files, never what is in them."""

    token: str = ""
    """Where an access token is."""
    key: str = ""
    """Where name and key are."""
    login: str = ""
    """Where the login of `kaggle auth login` is."""
    faults: tuple[str, ...] = ()
    """What looks like credentials and cannot be used, each as a sentence without its full stop."""

    @property
    def first(self) -> str | None:
        """What the client tries first; None when it will find nothing."""
        return self.token or self.key or self.login or None

    def used(self, method: str) -> str:
        """What the client has signed in with, by its name for the way; empty when unknown."""
        ways = {"ACCESS_TOKEN": self.token, "LEGACY_API_KEY": self.key, "OAUTH": self.login}
        return ways.get(method, "")


def look() -> Sight:
    """Looks at the environment and at files only."""
    faults: list[str] = []
    token = _token(faults)
    key = _name_and_key(faults)
    login = _login(faults)
    return Sight(token, key, login, tuple(faults))


def config_folder() -> Path:
    """The one folder where the client looks for kaggle.json; it makes it when it is not there."""
    own = os.environ.get("KAGGLE_CONFIG_DIR")
    if own:
        return Path(own)
    if not sys.platform.startswith("linux") or _is_there(_home()):
        return _home()
    return _xdg_folder()


def _xdg_folder() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or _user() / ".config") / "kaggle"


def _home() -> Path:
    return _user() / ".kaggle"


def _user() -> Path:
    return Path(os.path.expanduser("~"))  # noqa: PTH111  # Path.home() raises where there is none


def _token(faults: list[str]) -> str:
    value = os.environ.get(_TOKEN)
    if value:
        return _token_in_variable(value, faults)
    for path in (_home() / "access_token", _home() / "access_token.txt"):
        text = _read(path, faults)
        if text is not None and text.strip():
            return str(path)
        if text is not None:
            faults.append(f"{path} is empty")
    return ""


def _token_in_variable(value: str, faults: list[str]) -> str:
    path = Path(value)
    if not _is_there(path):
        return _TOKEN
    if path.is_dir():
        faults.append(f"{_TOKEN} names a folder, not a token or a file that holds one")
        return ""
    text = _read(path, faults, f"the file that {_TOKEN} names")
    if text is not None and not text.strip():
        faults.append(f"the file that {_TOKEN} names is empty")
    return _TOKEN if text and text.strip() else ""


def _name_and_key(faults: list[str]) -> str:
    path = config_folder() / "kaggle.json"
    found = _json(path, faults)
    for other in (_home(), _xdg_folder()):
        if other != path.parent and _is_there(other / "kaggle.json"):
            faults.append(f"{other / 'kaggle.json'} is not read: the client looks in {path.parent}")
    # The client asks only whether they are there, and a variable goes before the file.
    variables = [name for name in (_NAME, _KEY) if name in os.environ]
    in_file = [name for name in (_NAME, _KEY) if found and _in_file(name) in found]
    lacking = [_in_file(name) for name in (_NAME, _KEY) if name not in {*variables, *in_file}]
    if len(variables) == 2:
        return f"{_NAME} and {_KEY}"
    if not lacking:
        return " and ".join([str(path), *variables])
    if found is not None:
        faults.append(f"{path} lacks {' and '.join(lacking)}")
    elif variables:
        faults.append(f"{variables[0]} is set and {_NAME if variables[0] == _KEY else _KEY} is not")
    return ""


def _in_file(variable: str) -> str:
    """`"username"` for KAGGLE_USERNAME."""
    return variable.removeprefix("KAGGLE_").lower()


def _login(faults: list[str]) -> str:
    path = _home() / "credentials.json"
    found = _json(path, faults)
    if found is not None and not found.get("refresh_token"):
        faults.append(f"{path} holds no login: run kaggle auth login again")
    return str(path) if found and found.get("refresh_token") else ""


def _json(path: Path, faults: list[str]) -> dict[str, Any] | None:
    """The object in a file; None, with the reason among `faults` when the file is there."""
    text = _read(path, faults)
    if text is None:
        return None
    try:
        document = json.loads(text)
    except ValueError:
        faults.append(f"{path} is {'not valid JSON' if text.strip() else 'empty'}")
        return None
    return document if isinstance(document, dict) else {}


def _read(path: Path, faults: list[str], called: str = "") -> str | None:
    called = called or str(path)
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError:
        faults.append(f"{called} is not text")
    except PermissionError:
        faults.append(f"{called} cannot be read (chown it to yourself, chmod 600)")
    except OSError as error:
        faults.append(f"{called} cannot be read: {error.strerror or 'no reason given'}")
    return None


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # no permission to look, or too long for a name: a token is
        return False
