"""Every setting of a study file, from the settings themselves, as Markdown.

python docs/study_reference.py          # writes docs/study-reference.md
"""

from __future__ import annotations

import re
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from traitmap.study.load import legal_values
from traitmap.study.settings import (
    Endpoint,
    Lora,
    Mislabel,
    Model,
    OwnTarget,
    Source,
    Study,
    Target,
    Training,
)

PAGE = Path(__file__).parent / "study-reference.md"
# Where each record stands in a study file, in the order in which the page tells them.
RECORDS: dict[type[BaseModel], tuple[str, str]] = {
    Study: ("The file itself", ""),
    Model: ("model", "model."),
    Endpoint: ("model.endpoint", "model.endpoint."),
    Lora: ("lora", "lora."),
    Training: ("training", "training."),
    Source: ("sources", "sources[]."),
    Mislabel: ("sources[].mislabel", "sources[].mislabel."),
    OwnTarget: ("sources[].target", "sources[].target."),
    Target: ("targets", "targets[]."),
}
SET_BY_US = {(Study, "path")}  # fields that no study file holds
HEAD = """# The study file

<!-- Written by `python docs/study_reference.py` from `src/traitmap/study/settings.py`; edit there. -->

A study is one YAML file: a base, sources, targets, and how. `traitmap init FOLDER` writes one with comments,
`traitmap check FILE` tells every fault of a file at once, with its line. A key that is not in this list is a
fault. Relative paths start from the file's folder; `output` starts from the folder in which you run.
What may be changed in a source that is made from another one is told at length in
[variations](variations.md), servers in [endpoint](endpoint.md).
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(_section(record) for record in RECORDS)]).rstrip() + "\n"


def descriptions(record: type[BaseModel]) -> dict[str, str]:
    """What the docstring of a record says of each of its keys."""
    found: dict[str, str] = {}
    said = cleandoc(record.__doc__ or "")
    for match in re.finditer(r"^([a-z_0-9]+): (.*(?:\n    .*)*)", said, re.MULTILINE):
        found[match[1]] = " ".join(match[2].split()).replace("``", "`")
    return found


def introduction(record: type[BaseModel]) -> str:
    """What the docstring says beside the keys, as paragraphs."""
    paragraphs = re.split(r"\n\s*\n", cleandoc(record.__doc__ or ""))
    plain = [one for one in paragraphs if not re.match(r"[a-z_0-9]+: ", one)]
    return "\n\n".join(" ".join(one.split()).replace("``", "`") for one in plain)


def default_of(setting: FieldInfo) -> str:
    """The default in the words of a study file."""
    if setting.is_required():
        return "required"
    value = setting.get_default(call_default_factory=True)
    return "none" if value is None else _written(value)


def _written(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "as below"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`"


def _section(record: type[BaseModel]) -> str:
    title, place = RECORDS[record]
    said = descriptions(record)
    heading = f"## `{title}`" if place else f"## {title}"
    lines = [
        heading,
        "",
        introduction(record),
        "",
        "| key | legal values | default | meaning |",
        "|---|---|---|---|",
    ]
    for name, setting in record.model_fields.items():
        key = setting.alias or name
        if (record, name) not in SET_BY_US:
            entries = (f"`{place}{key}`", _legal(setting), default_of(setting), said.get(key, ""))
            lines.append(f"| {' | '.join(one.replace('|', chr(92) + '|') for one in entries)} |")
    return "\n".join([*lines, ""])


def _legal(setting: FieldInfo) -> str:
    """Type and bounds in words; of a record, where its own keys are told."""
    annotation: Any = setting.annotation
    records = [one for one in (annotation, *get_args(annotation)) if one in RECORDS]
    if records:
        title = RECORDS[records[0]][0]
        anchor = re.sub(r"[^a-z_-]", "", title)
        kind = "a list of mappings" if get_origin(annotation) is tuple else "a mapping"
        return f"{kind}, see [{title}](#{anchor})"
    return legal_values(Annotated[annotation, *setting.metadata] if setting.metadata else annotation)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
