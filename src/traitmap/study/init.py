"""Write a commented study to start from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from traitmap.errors import Fault, StudyError

_HERE = Path(__file__).parent / "templates"
_MINI = Path(__file__).parents[1] / "mini"
_EMBEDDED = {"mini": _MINI / "study.yaml", "variations": _MINI / "variations.yaml"}
_NAME = re.compile(r"^name:.*$", re.MULTILINE)

TEMPLATES = {
    "mini": "the embedded study: generated tasks and a tiny base, minutes on two CPU cores, no network",
    "variations": "the embedded study of causes: its sources with one thing changed, in several doses",
    "paper": "ten sources and ten targets of arXiv 2509.13624 on Llama-3.2-3B, for one GPU",
    "local-data": "files of your own, with two example sources that run as they are",
}


def write_template(folder: str | Path, template: str = "local-data") -> Path:
    """Write ``study.yaml`` and what belongs to it into a folder, and return the study's path.

    The folder is made where it is absent and gives the study its name. StudyError for an unknown
    template, and where any file to be written is there already: nothing is overwritten.
    """
    place = Path(os.path.abspath(os.path.expanduser(folder)))
    if template not in TEMPLATES:
        legal = "; ".join(f"{name}: {what}" for name, what in TEMPLATES.items())
        raise _error(place, "template", f"there is no template {template!r}; choose one of {legal}")
    contents = _files(template)
    study = Path("study.yaml")
    contents[study] = _NAME.sub(f"name: {name_of(place)}", contents[study].decode("utf-8"), count=1).encode(
        "utf-8"
    )
    return _write(place, contents)


def name_of(place: Path) -> str:
    """The name of the study in a folder: the folder's, as far as that can be a name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", place.name).strip("-.")[:100] or "study"


def write_study(place: Path, text: str) -> Path:
    """Write one study file into a folder, made where it is absent; StudyError where one is there already."""
    return _write(place, {Path("study.yaml"): text.encode("utf-8")})


def _write(place: Path, contents: Mapping[Path, bytes]) -> Path:
    """Write files, each whole or not at all, the study last: without it, equal files are a rest of ours."""
    study = Path("study.yaml")
    begun = not os.path.lexists(place / study)
    present = [
        str(name)
        for name, content in contents.items()
        if os.path.lexists(place / name) and not (begun and _holds(place / name, content))
    ]
    if present:
        files = ", ".join(present)
        message = f"{files} is there already and is not overwritten; give another folder or remove it"
        raise _error(place, "folder", message)
    try:
        for file, content in sorted(contents.items(), key=lambda item: item[0] == study):
            partial = (place / file).with_name(f".partial-{file.name}")
            partial.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content)
            os.replace(partial, place / file)
    except OSError as error:
        raise _error(
            place, "folder", f"it cannot be written: {error.strerror}; give another folder"
        ) from error
    return place / study


def _holds(path: Path, content: bytes) -> bool:
    """Whether a plain file holds these bytes."""
    try:
        return path.is_file() and not path.is_symlink() and path.read_bytes() == content
    except OSError:
        return False


def _files(template: str) -> dict[Path, bytes]:
    """Files of a template by their place in the new folder."""
    if template in _EMBEDDED:
        return {Path("study.yaml"): _EMBEDDED[template].read_bytes()}
    root = _HERE / template
    paths = [path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {path.relative_to(root): path.read_bytes() for path in sorted(paths)}


def _error(place: Path, where: str, message: str) -> StudyError:
    return StudyError(str(place), [Fault(where, message)])
