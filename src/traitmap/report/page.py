"""The report: records become one self-contained HTML file. No request leaves it, and no text in it can run.

``render_report`` gathers what each section shows and fills the templates, which escape every value. The
conditions of a run are shown as a tree of text, whatever was recorded and whatever its shape. The page that
follows a run in progress is apart from all this: it holds no datum and asks its own server for JSON.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, is_dataclass
from hashlib import sha256
from math import isfinite, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from traitmap import __version__
from traitmap.analysis.answer import Answer, answer_of
from traitmap.analysis.traits.scaling import clustered_order
from traitmap.analysis.verdicts import GLYPHS, Verdicts, cell_verdicts
from traitmap.errors import UserError
from traitmap.matrix.reading import Reading, read
from traitmap.report.chart import STEPS, diverging_class, themed, value_class
from traitmap.report.checkpoints import checkpoints_part
from traitmap.report.combine import combine_part
from traitmap.report.first_screen import page_answer, page_matrix
from traitmap.report.heatmap import MATRIX, Z_LIMIT, heatmap, layout
from traitmap.report.records import ReportContents
from traitmap.report.script_data import cell_parts, details_note, frame_data, layers
from traitmap.report.traits import traits_part
from traitmap.report.which import which_part
from traitmap.report.why import why_part
from traitmap.runs.files import write_output
from traitmap.runs.texts import IMPORTED
from traitmap.table import to_html
from traitmap.wording import clean, counted, in_time, listed, plain, sentence, typeset

if TYPE_CHECKING:
    from traitmap.analysis.cells import RunDetails

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("report.js", "state.js", "tables.js", "matrix.js", "cell.js", "compare.js", "save.js")
STYLES = ("report.css", "tables.css", "matrix.css", "cell.css", "figures.css")
_ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def write_report(path: Path, contents: ReportContents) -> Path:
    """Write the report whole, or leave what was there. The same records give the same bytes.

    contents: as for ``render_report``. Returns the path. UserError where the file cannot be written.
    """
    page = render_report(contents)
    try:
        return write_output(path, page)
    except OSError as error:
        raise UserError(
            f"The report cannot be written to {path}: {error.strerror or error}. Give a file in a folder "
            "that you may write to."
        ) from error


def render_report(contents: ReportContents) -> str:
    """The page as text; a part of the contents that is None has no section.

    conditions: whatever the run recorded, shown as it is; the top looks in it for the study's name
    (``name``, ``study.name``), the base (``model.path``, ``study.model.path``, ``base``), ``reproduce``
    (commands, one per line) and ``study`` (all of it, shown as a file that runs again). missing: section
    (``why``, ``which``) -> why it could not be computed, which stands in its place.
    """
    matrix, traits, cells = contents.matrix, contents.traits, contents.cells
    missing, conditions = contents.missing, contents.conditions
    reading = read(matrix)
    elsewhere = measured_elsewhere(conditions)
    if elsewhere:  # what such results cannot have is told once, and has no section
        untold = [
            f"{_UNTOLD[name]}: {sentence(reason)}" for name, reason in missing.items() if name in _UNTOLD
        ]
        missing = {}
    script = "".join(map(page_file, SCRIPTS))
    answer = contents.answer or _answer(contents)
    page: dict[str, Any] = {
        "title": find(conditions, "name", "study.name", "study", "file") or "Transfer matrix",
        "facts": [*_facts(reading, conditions), *([("Results of", answer.date)] if answer.date else [])],
        "answer": page_answer(answer, reading),
        "lead": _lead(reading, elsewhere),
        "based": reading.has_base,
        "elsewhere": elsewhere,
        "read_as": find(conditions, "read_as"),
        "untold": untold if elsewhere else [],
        "style": Markup(themed("".join(map(page_file, STYLES)))),
        "script": Markup(script),
        "script_digest": page_digest(script),
    }
    parts = (
        _matrix_part(contents, reading, answer.verdicts),
        traits_part(matrix, traits),
        why_part(matrix, contents.profile, contents.explanation, missing.get("why", ""), answer.verdicts),
        which_part(contents.evaluation, missing.get("which", "")),
        combine_part(contents.mix, missing.get("combine", "")),
        checkpoints_part(contents.checkpoints),
        _conditions_part(conditions, cells),
    )
    for part in parts:
        page |= part
    return page_environment().get_template("report.html").render(page)


def _answer(contents: ReportContents) -> Answer:
    """The answer by the matrix alone, where nobody looked at answers of a run."""
    return answer_of(
        contents.matrix,
        cell_verdicts(contents.matrix),
        explanation=contents.explanation,
        why_not="",
        traits=contents.traits,
    )


# Sections that need more than scores, as what cannot be told without it.
_UNTOLD = {"why": "Why the scores are what they are", "which": "Which source for a target that is not here"}


def measured_elsewhere(conditions: Mapping[str, Any]) -> bool:
    """Whether the numbers were read from a table, or imported from another harness."""
    return "read_as" in conditions or find(conditions, "engine.engine") == IMPORTED


def _lead(reading: Reading, elsewhere: bool) -> str:
    """What the page is about, in one sentence."""
    if not reading.has_base:
        return (
            "How every source does on every target, and what the targets have in common. These are scores, "
            "not gains: no base model is among them."
        )
    if elsewhere:
        return (
            "What each source does to everything else: its scores on every target, which were measured "
            "elsewhere, beside the base's."
        )
    return (
        "What each fine-tune does to everything else: one LoRA adapter per source, each evaluated on every "
        "target beside the untouched base."
    )


def _rows_and_columns(reading: Reading, elsewhere: bool) -> str:
    """What stands in a row, in a column and in a cell of the matrix."""
    row = "a source" if elsewhere else "an adapter, named after its source"
    if not reading.has_base:
        return (
            "Each row is a source, each column a target, each cell a score; colours run over all targets of "
            "one unit."
        )
    same = " on the same items" if any(isfinite(c.q) for cells in reading.cells for c in cells) else ""
    return (
        f"Each row is {row}; each column a target. The top row is the base in absolute values; below it "
        f"stand gains over the base{same}."
    )


def page_environment() -> Environment:
    """Templates that escape every value, stop at a missing one, and drop characters that HTML forbids."""

    def json_data(data: Any) -> Markup:
        """Short, and without a character that could end a script element or begin a tag."""
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return Markup(text.translate(_ESCAPED))

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else clean(value),
    )
    environment.filters["sentence"] = lambda text: prose(sentence(text))
    environment.filters["typeset"] = prose
    environment.filters["listed"] = listed
    environment.filters["counted"] = counted
    environment.filters["table"] = lambda table, key="": Markup(to_html(table, key))
    environment.filters["json"] = json_data
    return environment


def prose(text: str) -> Markup:
    """Text for a page: escaped, with minus signs, and what stands in backticks set as code."""
    return Markup(re.sub(r"`([^`\n]+)`", r"<code>\1</code>", str(escape(typeset(clean(text))))))


def page_file(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def page_digest(script: str) -> str:
    """What a content security policy calls a script by."""
    return b64encode(sha256(script.encode()).digest()).decode()


def _facts(reading: Reading, conditions: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was run, as pairs of a name and a value."""
    base = find(conditions, "model.path", "study.model.path", "model", "base", "base_row")
    # A path by its last part; the conditions have it in full. Ids of a hub stay whole.
    base = Path(base).name if base.startswith((".", "/", "~")) or "\\" in base else base
    items = sum(cell.n for cell in reading.base) or sum(
        max((row[t].n for row in reading.cells), default=0) for t in range(len(reading.targets))
    )
    cells = [cell for row in reading.cells for cell in row]
    known = sum(cell.status not in ("missing", "failed") for cell in cells)
    sources = str(len(reading.sources) - len(reading.variations))
    if reading.variations:
        sources += f" + {counted(len(reading.variations), 'variation')}"
    facts = [
        ("Base row" if "base_row" in conditions else "Base model", base),
        ("Sources", sources),
        ("Targets", str(len(reading.targets))),
        ("Seeds", str(len(reading.seeds)) if reading.seeds else ""),
        ("Test items", f"{items:,}" if items else ""),
        ("Cells known", f"{known} of {len(cells)}"),
    ]
    return [(name, value) for name, value in facts if value]


def _matrix_part(contents: ReportContents, reading: Reading, verdicts: Verdicts) -> dict[str, Any]:
    """The heat map with its legends and its table, and what the page's script shows of it."""
    cells = contents.cells
    sizes = layout(reading, clustered_order(contents.matrix))
    matrices = layers(contents.matrix, reading, cells.metrics if cells else ())
    statuses = {cell.status for row in reading.cells for cell in row}
    return {
        "matrix": heatmap(reading, sizes).svg(MATRIX),
        "legends": _legends(reading),
        "matrix_table": page_matrix(reading, verdicts),
        "groups": {
            "sources": _groups(reading.source_tags),
            "targets": _groups(contents.matrix.target_tags.values()),
        },
        "signs": [
            (glyph, kind)
            for kind, glyph in GLYPHS.items()
            if any(cell.kind == kind and cell.beyond_noise for cell in verdicts.cells)
        ],
        "names": {
            "sources": [clean(name) for name in reading.sources],
            "targets": [clean(target.name) for target in reading.targets],
        },
        "data": frame_data(contents.matrix, reading, sizes, matrices, verdicts),
        "layers": matrices,
        "cell_parts": cell_parts(reading, cells),
        "cell_note": details_note(cells),
        "rows_and_columns": _rows_and_columns(reading, measured_elsewhere(contents.conditions)),
        "tested": any(isfinite(cell.q) for row in reading.cells for cell in row),
        "diagonal": any(
            reading.in_domain(s, t) for s, row in enumerate(reading.cells) for t in range(len(row))
        ),
        "ordered": len(reading.sources) > 2 or len(reading.targets) > 2,
        "variations": len(reading.variations),
        "lower": [clean(target.name) for target in reading.targets if target.better < 0],
        "own_units": [
            (clean(t.name), clean(t.unit)) for t in reading.targets if t.unit not in ("points", "")
        ],
        "in_points": any(target.unit == "points" for target in reading.targets),
        "touched": bool(reading.touched),
        "hatched": bool(statuses - {"measured", "given", "predicted"}),
        "predicted": reading.some_predicted,
    }


def _groups(tags: Iterable[Sequence[str]]) -> list[str]:
    """Every tag once, in the order of the alphabet."""
    return sorted({clean(tag) for several in tags for tag in several})


def _legends(reading: Reading) -> tuple[dict[str, Any], ...]:
    """Key to the colours of each view: classes from end to end, and the words at the ends."""
    diverging = [diverging_class(step) for step in range(-STEPS, STEPS + 1)]
    shares = all(target.unit == "points" and target.better > 0 for target in reading.targets)
    limits = {target.unit: target.limit for target in reading.targets}
    spans = ", ".join(
        f"{plain(limit, 1 if limit % 1 else 0)} {clean(unit)}".strip() for unit, limit in limits.items()
    )
    z = plain(Z_LIMIT, 0)
    legends = (
        ("gain", diverging, f"worse by {spans} or more", f"better by {spans} or more"),
        (
            "absolute",
            [value_class(step) for step in range(STEPS + 1)],
            *(("0 %", "100 %") if shares else ("worst", "best")),
        ),
        ("z", diverging, f"worse: z = −{z}", f"better: z = +{z}"),
    )[0 if reading.has_base else 1 :]
    return tuple(
        {"view": view, "classes": classes, "left": left, "right": right}
        for view, classes, left, right in legends
    )


# Conditions.


def _conditions_part(conditions: Mapping[str, Any], cells: RunDetails | None) -> dict[str, Any]:
    """The study as a file where it is known, how to run it again, and all the rest as it was recorded."""
    study = study_file(conditions)
    apart = {"reproduce", "study"} if study else {"reproduce"}
    commands = conditions.get("reproduce", "")
    commands = commands if isinstance(commands, str) else "\n".join(map(str, commands))
    return {
        "conditions": tree({key: value for key, value in conditions.items() if key not in apart}),
        "summary": summary(conditions, cells.spent if cells else {}),
        "citation": CITATION,
        "study": study,
        "reproduce": clean(commands) or ("traitmap run study.yaml" if study else ""),
    }


@dataclass(frozen=True)
class Node:
    """A name with either a text or further nodes. block: the text has lines of its own."""

    name: str
    text: str = ""
    block: bool = False
    children: tuple[Node, ...] = ()


def tree(conditions: Mapping[str, Any]) -> tuple[Node, ...]:
    """One node for each key, in the order given; scalars side by side, and anything deeper as nodes.

    Entries of a list are called by their own ``name`` or their number. Records show their fields.
    """
    return tuple(_node(clean(name), value) for name, value in conditions.items())


def _node(name: str, value: Any) -> Node:
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return Node(name, children=tree(value)) if value else Node(name, "none")
    if isinstance(value, AbstractSet):
        value = sorted(value, key=str)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        text = scalar(value)
        return Node(name, text, block="\n" in text)
    if all(not isinstance(entry, Mapping | list | tuple) for entry in value):
        return Node(name, ", ".join(map(scalar, value)) or "none")
    names = [entry.get("name") if isinstance(entry, Mapping) else None for entry in value]
    children = [_node(clean(names[at] or at + 1), entry) for at, entry in enumerate(value)]
    return Node(name, children=tuple(children))


def scalar(value: Any) -> str:
    """A single value as text; unknown says so.

    None is ``not set``, NaN ``unknown``; floats have ten digits.
    """
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "unknown" if isnan(value) else f"{value:.10g}"
    return clean(value)


def find(conditions: Mapping[str, Any], *paths: str) -> str:
    """The first of some dotted paths that holds a plain value, as text, or an empty string.

    A path such as ``study.model.path`` leads through mappings; mappings and lists are no plain values.
    """
    for path in paths:
        value: Any = conditions
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None and not isinstance(value, Mapping | list | tuple):
            return scalar(value)
    return ""


def study_file(conditions: Mapping[str, Any]) -> str:
    """The study as it was run, as YAML that runs again, or an empty string where none was recorded.

    What was left unset is left out: that is the default everywhere.
    """
    study = conditions.get("study")
    if not isinstance(study, Mapping):
        return ""

    def without_unset(value: Any) -> Any:
        if isinstance(value, dict):
            entries = {key: without_unset(entry) for key, entry in value.items()}
            return {
                key: entry for key, entry in entries.items() if entry is not None and entry not in ({}, [])
            }
        return [without_unset(entry) for entry in value] if isinstance(value, list) else value

    settings = without_unset(json.loads(json.dumps(study, default=str)))
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=100)


def summary(
    conditions: Mapping[str, Any], spent: Mapping[str, float]
) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """What a reader looks up first: seeds, digests, versions, what the run took.

    Groups of (name, facts), facts being pairs of a name and a value; no empty groups. spent: what -> how
    much, in seconds where its name ends so.
    """
    engine = conditions.get("engine")
    engine = engine if isinstance(engine, Mapping) else {}
    versions = engine.get("versions") or conditions.get("versions")
    digests = conditions.get("digests")

    def short(digest: str) -> str:  # enough to tell it apart; the whole stands among all that was recorded
        return digest if len(digest) <= 16 else f"{digest[:12]}…"

    identity = {
        "Seeds": ", ".join(map(str, conditions.get("seeds") or ())),
        "Base": find(conditions, "base", "model.path", "study.model.path"),
        "Digest of the base": short(find(conditions, "base_digest", "digests.base")),
        "Digest of the study": short(find(conditions, "study_digest", "digests.study")),
    }
    for name, digest in (digests if isinstance(digests, Mapping) else {}).items():
        if name not in ("base", "study"):
            identity[f"Digest: {name}"] = scalar(digest)
    made = {"traitmap": find(conditions, "traitmap", "versions.traitmap") or __version__}
    for name, version in (versions if isinstance(versions, Mapping) else {}).items():
        made[str(name)] = scalar(version)
    made |= {
        "Device": scalar(engine["device"]) if engine.get("device") else "",
        "Numbers": scalar(engine["dtype"]) if engine.get("dtype") else "",
        "Parameters": f"{engine['parameters']:,}" if isinstance(engine.get("parameters"), int) else "",
    }
    took = {}
    for name, amount in spent.items():
        label = name[:1].upper() + name[1:].removesuffix(" seconds")
        took[label] = in_time(amount) if name.endswith(" seconds") else f"{amount:,.0f}"
    groups = (("Identity", identity), ("Made with", made), ("What it took", took))
    facts = ((name, tuple((key, value) for key, value in group.items() if value)) for name, group in groups)
    return tuple(group for group in facts if group[1])


# BibTeX of the paper and of this program.
CITATION = f"""@misc{{krishna2025latent,
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


def report_policy() -> str:
    """The policy that a server sends with a report: only the script of this version may run."""
    return (
        f"default-src 'none'; script-src 'sha256-{page_digest(''.join(map(page_file, SCRIPTS)))}'; "
        "style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


# The page that follows a run.


def following_page() -> str:
    """The page, without any datum of a run: names come later, as JSON, and are set as text.

    The server that shows it sends ``following_policy`` with it.
    """
    page, style, script = (page_file(f"following.{kind}") for kind in ("html", "css", "js"))
    return page.replace("/* style */", themed(style)).replace("/* script */", script)


def following_policy() -> str:
    """The page's content security policy: its own script, its own style, its own server, nothing else."""
    return (
        f"default-src 'none'; script-src 'sha256-{page_digest(page_file('following.js'))}'; "
        "style-src 'unsafe-inline'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
