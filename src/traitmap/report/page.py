"""Run conditions as a tree of text: whatever was recorded is shown, whatever its shape.

Records -> one self-contained HTML file: no request leaves it, and no text in it can run.

The page that follows a run in progress: one small file that asks for JSON and shows what it says.
"""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, is_dataclass
from hashlib import sha256
from math import isnan
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from traitmap import __version__
from traitmap.analysis.traits.records import Traits
from traitmap.analysis.traits.scaling import clustered_order
from traitmap.errors import UserError
from traitmap.matrix.reading import Reading, matrix_table, read
from traitmap.matrix.record import TransferMatrix
from traitmap.report import chart as palette
from traitmap.report.cell_pages import cell_parts, details_note
from traitmap.report.headline import headline
from traitmap.report.heatmap import Z_LIMIT, frame_data, heatmap, layers, layout
from traitmap.report.traits import traits_part
from traitmap.report.which import which_part
from traitmap.report.why import why_part
from traitmap.table import to_html
from traitmap.wording import clean, counted, in_time, plain, sentence

if TYPE_CHECKING:
    from traitmap.analysis.cells import RunDetails
    from traitmap.analysis.explanation.records import Explanation
    from traitmap.analysis.profiles.record import Profile


@dataclass(frozen=True)
class Node:
    """A name with either a text or further nodes. block: the text has lines of its own."""

    name: str
    text: str = ""
    block: bool = False
    children: tuple[Node, ...] = ()


def tree(conditions: Mapping[str, Any]) -> tuple[Node, ...]:
    """One node for each key, in the order given."""
    return tuple(_node(str(name), value) for name, value in conditions.items())


def _node(name: str, value: Any) -> Node:
    name = clean(name)
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return Node(name, children=tree(value)) if value else Node(name, "none")
    if isinstance(value, AbstractSet):
        value = sorted(value, key=str)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return _sequence(name, value)
    text = scalar(value)
    return Node(name, text, block="\n" in text)


def _sequence(name: str, values: Sequence[Any]) -> Node:
    """Scalars side by side; anything deeper as nodes, called by their own ``name`` or number."""
    if all(not isinstance(value, Mapping | list | tuple) for value in values):
        return Node(name, ", ".join(scalar(value) for value in values) or "none")
    children = []
    for number, value in enumerate(values, start=1):
        own = value.get("name") if isinstance(value, Mapping) else None
        children.append(_node(str(own or number), value))
    return Node(name, children=tuple(children))


def scalar(value: Any) -> str:
    """A single value as text; unknown says so."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "unknown" if isnan(value) else f"{value:.10g}"
    return clean(value)


def study_file(conditions: Mapping[str, Any]) -> str:
    """The study as it was run, as YAML that runs again, or an empty string where none was recorded."""
    study = conditions.get("study")
    if not isinstance(study, Mapping):
        return ""
    plain = json.loads(json.dumps(study, default=str))
    return yaml.safe_dump(_without_unset(plain), sort_keys=False, allow_unicode=True, width=100)


def _without_unset(value: Any) -> Any:
    """Without what was left at nothing, which is the default everywhere."""
    if isinstance(value, dict):
        kept = {key: _without_unset(one) for key, one in value.items()}
        return {key: one for key, one in kept.items() if one is not None and one not in ({}, [])}
    return [_without_unset(one) for one in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class ConditionGroup:
    """A few facts of one kind, name and value."""

    name: str
    facts: tuple[tuple[str, str], ...]


def summary(conditions: Mapping[str, Any], spent: Mapping[str, float]) -> tuple[ConditionGroup, ...]:
    """What a reader looks up first: seeds, digests, versions, what the run took. No empty groups."""
    engine = conditions.get("engine")
    engine = engine if isinstance(engine, Mapping) else {}
    versions = engine.get("versions") or conditions.get("versions")
    digests = conditions.get("digests")
    identity = {
        "Seeds": ", ".join(map(str, conditions.get("seeds") or ())),
        "Base": find(conditions, "base", "model.path", "study.model.path"),
        "Digest of the base": _short(find(conditions, "base_digest", "digests.base")),
        "Digest of the study": _short(find(conditions, "study_digest", "digests.study")),
    }
    made = {
        "traitmap": find(conditions, "traitmap", "versions.traitmap") or __version__,
        **{
            str(name): scalar(one)
            for name, one in (versions if isinstance(versions, Mapping) else {}).items()
        },
        "Device": scalar(engine["device"]) if engine.get("device") else "",
        "Numbers": scalar(engine["dtype"]) if engine.get("dtype") else "",
        "Parameters": f"{engine['parameters']:,}" if isinstance(engine.get("parameters"), int) else "",
    }
    more = digests if isinstance(digests, Mapping) else {}
    identity |= {
        f"Digest: {name}": scalar(one) for name, one in more.items() if name not in ("base", "study")
    }
    took = {
        name[:1].upper() + name[1:].removesuffix(" seconds"): in_time(value)
        if name.endswith(" seconds")
        else f"{value:,.0f}"
        for name, value in spent.items()
    }
    groups = (("Identity", identity), ("Made with", made), ("What it took", took))
    return tuple(
        ConditionGroup(name, tuple((key, value) for key, value in facts.items() if value))
        for name, facts in groups
        if any(facts.values())
    )


def _short(digest: str) -> str:
    """Enough of a digest to tell it apart; the whole stands among all that was recorded."""
    return digest if len(digest) <= 16 else f"{digest[:12]}…"


def citation() -> str:
    """BibTeX of the paper and of this program."""
    return f"""@misc{{krishna2025latent,
  title         = {{Latent Traits and Cross-Task Transfer: Deconstructing Dataset Interactions in LLM
                   Fine-tuning}},
  author        = {{Krishna, Shambhavi and Naik, Atharva and Agarwal, Chaitali and Govindan, Sudharshan and
                   Lee, Taesung and Chang, Haw-Shiuan}},
  year          = {{2025}},
  eprint        = {{2509.13624}},
  archivePrefix = {{arXiv}}
}}

@software{{traitmap,
  title   = {{traitmap: transfer matrices, latent traits and their uncertainty}},
  version = {{{__version__}}},
  year    = {{2026}}
}}"""


def find(conditions: Mapping[str, Any], *paths: str) -> str:
    """The first of some dotted paths that holds a plain value, as text, or an empty string."""
    for path in paths:
        value: Any = conditions
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None and not isinstance(value, Mapping | list | tuple):
            return scalar(value)
    return ""


TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("report.js", "matrix.js", "cell.js", "save.js", "figures.js")
STYLES = ("report.css", "matrix.css", "cell.css", "figures.css")


@dataclass(frozen=True)
class Legend:
    """Key to the colours of one view: classes from end to end, and the words at the ends."""

    view: str
    classes: tuple[str, ...]
    left: str
    right: str


def write_report(
    path: Path,
    matrix: TransferMatrix,
    traits: Traits | None,
    conditions: Mapping[str, Any],
    *,
    profile: Profile | None = None,
    explanation: Explanation | None = None,
    recommendation: Any = None,
    cells: RunDetails | None = None,
    evaluation: Any = None,
    missing: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Write the report whole, or leave what was there. The same records give the same bytes.

    conditions: whatever the run recorded, shown as it is; the headline looks in it for the study's name
    (``name``, ``study.name``), the base (``model.path``, ``study.model.path``, ``base``), ``reproduce``
    (commands, one per line) and ``study`` (all of it, shown as a file that runs again). The further parts
    as for ``render_report``. UserError where the file cannot be written.
    """
    page = render_report(
        matrix,
        traits,
        conditions,
        profile=profile,
        explanation=explanation,
        recommendation=recommendation,
        cells=cells,
        evaluation=evaluation,
        missing=missing,
    )
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(page, encoding="utf-8", newline="\n")
        os.replace(part, path)
    except OSError as error:
        raise UserError(
            f"The report cannot be written to {path}: {error.strerror or error}. Give a file in a folder "
            "that you may write to."
        ) from error
    return path


def render_report(
    matrix: TransferMatrix,
    traits: Traits | None,
    conditions: Mapping[str, Any],
    *,
    profile: Profile | None = None,
    explanation: Explanation | None = None,
    recommendation: Any = None,
    cells: RunDetails | None = None,
    evaluation: Any = None,
    missing: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The page as text; a part that is None has no section.

    profile: what texts and answers say beyond scores. explanation: why gains are what they are.
    recommendation, evaluation: which source for each target, and how far that can be trusted.
    cells: the details of single cells, other metrics, and what the run took. missing: section (``why``,
    ``which``) -> why it could not be computed, which stands in its place.
    """
    reading = read(matrix)
    script = "".join(map(_file, SCRIPTS))
    page: dict[str, Any] = {
        "title": find(conditions, "name", "study.name", "study") or "Transfer matrix",
        "facts": _facts(reading, conditions),
        "found": headline(reading, traits, cells.reasons if cells else {}),
        "findings": (),
        "style": Markup(_style()),
        "script": Markup(script),
        "script_digest": b64encode(sha256(script.encode()).digest()).decode(),
    }
    parts = (
        _matrix_part(matrix, reading, cells),
        traits_part(matrix, traits),
        why_part(matrix, profile, explanation, missing.get("why", "")),
        which_part(matrix, recommendation, evaluation, missing.get("which", "")),
        _conditions_part(conditions, cells),
    )
    for part in parts:
        findings = (*page["findings"], *part.get("findings", ()))
        page |= part | {"findings": findings}
    return _environment().get_template("report.html").render(page)


def _matrix_part(matrix: TransferMatrix, reading: Reading, cells: RunDetails | None) -> dict[str, Any]:
    sizes = layout(reading, clustered_order(matrix))
    found = layers(matrix, reading, cells.metrics if cells else ())
    return {
        "matrix": heatmap(reading, sizes),
        "legends": _legends(reading),
        "matrix_table": matrix_table(reading),
        "data": frame_data(reading, sizes, found),
        "layers": found,
        "cell_parts": cell_parts(reading, cells),
        "cell_note": details_note(cells),
        "ordered": len(reading.sources) > 2 or len(reading.targets) > 2,
        "variations": len(reading.variations),
        "lower": [clean(target.name) for target in reading.targets if target.better < 0],
        "own_units": [(clean(t.name), clean(t.unit)) for t in reading.targets if t.unit != "points"],
        "touched": bool(reading.touched),
        "hatched": any(
            cell.status not in ("measured", "given", "predicted") for row in reading.cells for cell in row
        ),
        "predicted": reading.some_predicted,
    }


def _conditions_part(conditions: Mapping[str, Any], cells: RunDetails | None) -> dict[str, Any]:
    """The study as a file where it is known, how to run it again, and all the rest as it was recorded."""
    study = study_file(conditions)
    apart = {"reproduce", "study"} if study else {"reproduce"}
    return {
        "conditions": tree({key: value for key, value in conditions.items() if key not in apart}),
        "summary": summary(conditions, cells.spent if cells else {}),
        "citation": citation(),
        "study": study,
        "reproduce": _reproduce(conditions) or ("traitmap run study.yaml" if study else ""),
    }


def _environment() -> Environment:
    """Templates that escape every value, stop at a missing one, and drop characters that HTML forbids."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else clean(value),
    )
    environment.filters["sentence"] = sentence
    environment.filters["json"] = _json
    environment.filters["table"] = lambda table: Markup(to_html(table))
    return environment


def _json(data: Any) -> Markup:
    """Data for a script element: short, and without a character that could end the element or begin a tag."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.translate(_ESCAPED))


_ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def _file(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _style() -> str:
    """The style sheet with the palettes of both themes in their places."""
    style = "".join(map(_file, STYLES))
    for theme in ("light", "dark"):
        style = style.replace(f"/* {theme} palette */", palette.variables(theme))
    return style.replace("/* palette classes */", palette.rules())


def _facts(reading: Reading, conditions: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was run, as pairs of a name and a value."""
    base = find(conditions, "model.path", "study.model.path", "model", "base")
    items = sum(cell.n for cell in reading.base) or sum(
        max((row[t].n for row in reading.cells), default=0) for t in range(len(reading.targets))
    )
    cells = [cell for row in reading.cells for cell in row]
    known = sum(cell.status not in ("missing", "failed") for cell in cells)
    own = len(reading.sources) - len(reading.variations)
    facts = [
        ("Base model", _place(base)),
        (
            "Sources",
            f"{own} + {counted(len(reading.variations), 'variation')}" if reading.variations else str(own),
        ),
        ("Targets", str(len(reading.targets))),
        ("Seeds", str(len(reading.seeds)) if reading.seeds else ""),
        ("Test items", f"{items:,}".replace(",", "\u202f") if items else ""),
        ("Cells known", f"{known} of {len(cells)}"),
    ]
    return [(name, value) for name, value in facts if value]


def _place(path: str) -> str:
    """A path by its last part; the conditions have it in full. Ids of a hub stay whole."""
    return Path(path).name if path.startswith((".", "/", "~")) or "\\" in path else path


def _legends(reading: Reading) -> tuple[Legend, ...]:
    steps = range(palette.STEPS, 0, -1)
    diverging = (*(f"gm{at}" for at in steps), "g0", *(f"gp{at}" for at in reversed(steps)))
    shares = all(target.unit == "points" and target.better > 0 for target in reading.targets)
    ends = ("0 %", "100 %") if shares else ("worst", "best")
    limits = {target.unit: target.limit for target in reading.targets}
    spans = ", ".join(
        f"{plain(limit, 1 if limit % 1 else 0)} {clean(unit)}" for unit, limit in limits.items()
    )
    return (
        Legend("gain", diverging, f"worse by {spans} or more", f"better by {spans} or more"),
        Legend("absolute", tuple(f"v{at}" for at in range(palette.STEPS + 1)), *ends),
        Legend("z", diverging, f"worse: z = −{plain(Z_LIMIT, 0)}", f"better: z = +{plain(Z_LIMIT, 0)}"),
    )


def _reproduce(conditions: Mapping[str, Any]) -> str:
    """The recorded commands, one per line."""
    commands = conditions.get("reproduce", "")
    return clean(commands if isinstance(commands, str) else "\n".join(str(command) for command in commands))


def following_page() -> str:
    """The page, without any datum of a run: names come later, as JSON, and are set as text."""
    page, style, script = (_following_file(f"following.{kind}") for kind in ("html", "css", "js"))
    for theme in ("light", "dark"):
        style = style.replace(f"/* {theme} palette */", palette.variables(theme))
    style = style.replace("/* palette classes */", palette.rules())
    return page.replace("/* style */", style).replace("/* script */", script)


def following_policy() -> str:
    """The page's content security policy: its own script, its own style, its own server, nothing else."""
    digest = b64encode(sha256(_following_file("following.js").encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _following_file(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
