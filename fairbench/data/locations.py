"""Where things lie on this machine: the folder of each dataset, folders given for backbones."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import platformdirs

from fairbench.errors import FairbenchError
from fairbench.settings import suggest

DATA = "FAIRBENCH_DATA"


def roots(options: Sequence[str], names: Iterable[str]) -> dict[str, Path]:
    """Return the folder of every dataset in `names`, which are those that need one.

    The first that applies wins: an option `name=PATH` (`--data`), the subfolder `name` of the folder in
    the environment variable FAIRBENCH_DATA, the entry `name` under `[data]` in the user's `fairbench.toml`.
    Raises FairbenchError for an option that cannot be read or names no such dataset, for a path that does
    not exist, and for a dataset that none of the three knows.
    """
    wanted = list(dict.fromkeys(names))
    given = parse(options)
    for name in given:
        if name not in wanted:
            unknown = suggest("dataset of this run that needs a folder", name, wanted)
            raise FairbenchError(f"--data {name}=…: {unknown.message}", unknown.hint)
    shared = _shared()
    configured = read_config() if set(wanted) - set(given) else {}
    folders: dict[str, Path] = {}
    for name in wanted:
        if name in given:
            folders[name] = _existing(given[name], f"--data {name}={given[name]}")
        elif shared is not None and (shared / name).exists():
            folders[name] = shared / name
        elif name in configured:
            folders[name] = _existing(configured[name], f"{config_file()}: data.{name} = {configured[name]!r}")
        else:
            raise _unknown(name, shared)
    return folders


def shared_roots(options: Sequence[str], folders: Mapping[str, str]) -> dict[str, Path]:
    """Return the folder of every dataset, where several may read one: `folders` is dataset → whose folder.

    A folder that is given for a dataset itself goes before the one it shares. Raises as `roots` does.
    """
    given = parse(options)
    whose = {name: name if name in given else folder for name, folder in folders.items()}
    where = roots(options, whose.values())
    return {name: where[folder] for name, folder in whose.items()}


def parse(options: Sequence[str]) -> dict[str, str]:
    """Split `name=PATH` options; raises FairbenchError for one without either or for a name given twice."""
    given: dict[str, str] = {}
    for option in options:
        name, equals, path = (part.strip() for part in option.partition("="))
        if not (name and equals and path):
            raise FairbenchError(f"--data {option}: this is not name=PATH", "for example --data NAME=~/folder")
        if given.setdefault(name, path) != path:
            raise FairbenchError(
                f"--data gives two folders for {name}: {given[name]} and {path}", "keep one of them"
            )
    return given


def located(entry: str) -> tuple[str, Path | None]:
    """Split NAME:FOLDER into a name that is the same on every machine, and where the folder lies on this one.

    FOLDER may be a name on the hub as well. A snapshot in the hub's cache is called what it is there.
    """
    name, colon, text = (part.strip() for part in entry.partition(":"))
    if not colon:
        return name, None
    folder = Path(text).expanduser()
    place = Path(os.path.abspath(folder)) if folder.exists() or folder.is_absolute() else Path(text)
    snapshot = next((part for part in place.parts if part.startswith("models--")), "")
    label = snapshot.split("--")[-1] or place.name
    if not re.fullmatch(r"[\w.+-]+", label):
        raise FairbenchError(
            f"{entry}: {label!r} cannot be part of a name",
            "use letters, digits and -_.+ in the folder's name",
        )
    return f"{name}:{label}", place


def places(entries: Iterable[str]) -> dict[str, Path]:
    """Return where the folders lie that NAME:FOLDER entries give, by what those are called."""
    folders: dict[str, Path] = {}
    for entry in entries:
        name, place = located(entry)
        if place is not None and folders.setdefault(name, place) != place:
            raise FairbenchError(
                f"{folders[name]} and {place} would both be called {name}", "rename one of the two folders"
            )
    return folders


def config_file() -> Path:
    """Return where the user's settings are read from, whether or not the file exists."""
    return Path(platformdirs.user_config_dir("fairbench", appauthor=False)) / "fairbench.toml"


def read_config() -> Mapping[str, str]:
    """Return the `[data]` table of the user's settings, empty where there is no such file.

    Raises FairbenchError for a file that is not TOML, an unknown key, or a path that is not absolute.
    """
    file = config_file()
    try:
        text = file.read_text(encoding="utf-8-sig")
        content = tomllib.loads(text)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FairbenchError(f"cannot read {file}: {error}", "mend or remove it") from error
    for key in content:
        if key != "data":
            unknown = suggest("key", key, ["data"])
            raise FairbenchError(f"{file}: {unknown.message}", unknown.hint)
    data = content.get("data", {})
    if not isinstance(data, dict):
        raise FairbenchError(f"{file}: data is not a table", '[data]\nNAME = "/path/to/its/folder"')
    for name, path in data.items():
        if not isinstance(path, str) or not Path(path).expanduser().is_absolute():
            raise FairbenchError(f"{file}: data.{name} = {path!r} is not an absolute path", "start it with / or ~")
    return data


def _shared() -> Path | None:
    chosen = os.environ.get(DATA)
    if not chosen:
        return None
    folder = Path(chosen).expanduser().absolute()
    if not folder.is_dir():
        raise FairbenchError(f"{DATA}={chosen}: there is no such folder", "correct or unset the variable")
    return folder


def _existing(path: str, where: str) -> Path:
    whole = Path(path).expanduser().absolute()
    if not whole.exists():
        raise FairbenchError(f"{where}: {whole} does not exist", "check the path")
    return whole


def _unknown(name: str, shared: Path | None) -> FairbenchError:
    looked = f"{shared} has no subfolder {name}" if shared else f"{DATA} is not set"
    return FairbenchError(
        f"where is the data of {name}?",
        f"say --data {name}=PATH, or set {DATA} to a folder that holds a subfolder {name} ({looked}), "
        f'or write [data] {name} = "/absolute/path" into {config_file()}',
    )
