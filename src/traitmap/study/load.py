"""Read a study file: every fault of it at once, each with its line and with what would be legal there.

Three passes over one text: YAML as plain data with its lines (`study.document`), values against the types of
the settings (`study.settings`, whose faults are put into words here), and the rules between settings
(`study.rules`), once, whatever else is wrong.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from traitmap.errors import Fault, StudyError
from traitmap.study.document import Document, Place, read_document, words_of
from traitmap.study.rules import part_conflicts, study_conflicts
from traitmap.study.settings import RULES_APART, Lora, Model, Settings, Source, Study, Target, Training

_PLAIN = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_LARGEST_FILE = 1_000_000
_OVERRIDES: dict[str, type[Settings]] = {"training": Training, "lora": Lora}
_EXAMPLES = {
    "name": "name: my-study",
    "model": "model: org/name, or model: builtin:mini",
    "sources": "sources: a list, each with name and one of path, task, adapter, served_as, model, ...",
    "path": "path: org/name",
}
Record = TypeVar("Record", bound=Settings)


@dataclass(frozen=True)
class StudyDraft:
    """A study file as far as it could be read.

    study: the study, or None where there is any fault.
    model, training, lora, sources, targets: those parts that are in order by themselves, sources and targets
        by their position in the file; include_path, sample_seed, data: as given, else their defaults.
    faults: everything wrong with the file itself; data that the study names is not looked at.
    """

    path: Path
    faults: tuple[Fault, ...]
    study: Study | None = None
    model: Model | None = None
    training: Training | None = None
    lora: Lora | None = None
    sources: Mapping[int, Source] = field(default_factory=dict)
    targets: Mapping[int, Target] = field(default_factory=dict)
    include_path: tuple[str, ...] = ()
    sample_seed: int = 0
    data: str | None = None
    document: Document = field(default_factory=lambda: Document(None, {}, ()))

    def fault(self, place: Place, message: str) -> Fault:
        """A fault at a place of this file, with its line."""
        return Fault(words_of(place), message, self.document.line(place))


def load_study(path: str | Path) -> Study:
    """The study in a YAML file, checked as far as the file alone goes; its data are not looked at.

    Relative paths in it start at the file's folder. StudyError with every fault of the file.
    """
    draft = read_draft(path)
    if draft.study is None:
        raise StudyError(str(path), draft.faults)
    return draft.study


def read_draft(path: str | Path) -> StudyDraft:
    """Read a study file as far as it goes. Never raises for what stands in the file.

    The draft holds the study, or else every fault of the file and those of its parts that are in order.
    """
    file = Path(os.path.abspath(os.path.expanduser(path)))
    text = _text_of(file)
    if isinstance(text, Fault):
        return StudyDraft(file, (text,))
    document = read_document(text, lambda place: holds_text(_annotation_at(place)))
    if not isinstance(document.data, dict):
        message = f"{_shown(document.data)} is not a study: give keys such as name, model, sources"
        return StudyDraft(file, document.faults or (Fault("study", message, 1),), document=document)
    data = {key: value for key, value in document.data.items() if key != "path"}
    faults = list(document.faults)
    if "path" in document.data:
        faults.append(_at(document, ("path",), _unknown_key("path", Study)))
    study, checked = None, data
    try:
        study = Study.model_validate({**data, "path": file}, context=RULES_APART)
        checked = study.model_dump()
    except ValidationError as error:
        faults.extend(_validation_faults(document, error))
    of_parts = list(part_conflicts(checked))
    faults.extend(_at(document, *conflict) for conflict in (*of_parts, *study_conflicts(checked)))
    # parts in order by themselves: their values are legal, and no rule inside them is broken
    broken = {place[:2] for place, _ in of_parts}
    model = None if any(place[0] == "model" for place in broken) else _checked(Model, data.get("model"))
    training = None if ("training",) in {place[:1] for place in broken} else data.get("training") or {}
    sources = {at: source for at, source in _items(Source, data) if ("sources", at) not in broken}
    include_path, seed, copies = (data.get(key) for key in ("include_path", "sample_seed", "data"))
    folders = include_path if isinstance(include_path, list) else ()
    return StudyDraft(
        path=file,
        faults=tuple(dict.fromkeys(faults)),
        study=None if faults else study,
        model=model,
        training=_checked(Training, training),
        lora=_checked(Lora, data.get("lora") or {}),
        sources=sources,
        targets={at: target for at, target in _items(Target, data) if ("targets", at) not in broken},
        include_path=tuple(folder for folder in folders if isinstance(folder, str)),
        sample_seed=seed if type(seed) is int else 0,
        data=copies if isinstance(copies, str) and copies.strip() else None,
        document=document,
    )


def _text_of(file: Path) -> str | Fault:
    advice = "`traitmap init FOLDER` writes a study to edit"
    try:
        if os.path.isdir(file):
            return Fault("study", f"{file} is a folder; give the file in it, such as {file / 'study.yaml'}")
        with file.open("rb") as stream:
            content = stream.read(_LARGEST_FILE + 1)  # a device or a pipe tells no size
        if len(content) > _LARGEST_FILE:
            return Fault(
                "study", f"larger than {_LARGEST_FILE:,} bytes, so hardly a study file; check the path"
            )
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        return Fault("study", f"there is no such file; check the path, or {advice}")
    except UnicodeDecodeError as error:
        return Fault("study", f"not UTF-8 text (byte {error.start}); save the file as UTF-8")
    except (OSError, ValueError) as error:
        return Fault("study", f"it cannot be read: {error}")


def _checked(record: type[Record], value: Any) -> Record | None:
    """The value as this record, or None where it is not legal."""
    try:
        return record.model_validate(value, context=RULES_APART)
    except ValidationError:
        return None


def _items(record: type[Record], data: Mapping[str, Any]) -> Iterator[tuple[int, Record]]:
    """The legal ones among a study's sources or targets, with their positions."""
    items = data.get("sources" if record is Source else "targets")
    for at, value in enumerate(items if isinstance(items, list) else ()):
        item = _checked(record, value)
        if item is not None:
            yield at, item


def _validation_faults(document: Document, error: ValidationError) -> Iterator[Fault]:
    for wrong in error.errors(include_url=False):
        place, kind = tuple(wrong["loc"]), wrong["type"]
        if kind == "extra_forbidden":
            yield _at(document, place, _unknown_key(str(place[-1]), _annotation_at(place[:-1])))
            continue
        if kind == "missing":
            example = _EXAMPLES.get(str(place[-1]))
            write = f"; write {example}" if example else ""
            yield _at(document, place, f"required, but not given{write}")
            continue
        # without the parts that pydantic adds for the members of a union and its own checks
        while place and place not in document.lines and _annotation_at(place) is Any:
            place = place[:-1]
        message = wrong["msg"]
        if kind != "fault":  # not in words of ours
            legal = legal_values(_annotation_at(place))
            message = f"{_shown(_value_at(document.data, place))} is not legal; give {legal}"
        yield _at(document, place, message)


def _value_at(data: Any, place: Place) -> Any:
    for key in place:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _unknown_key(key: str, settings: Any) -> str:
    legal = [name for name in keys_of(settings) if (settings, name) != (Study, "path")]
    near = get_close_matches(key, legal, n=1)
    guess = f"; did you mean {near[0]}?" if near else ";"
    return f"unknown key {key!r}{guess} legal here: {', '.join(legal)}"


def _shown(value: Any) -> str:
    if value is None:
        return "an empty value"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _at(document: Document, place: Place, message: str) -> Fault:
    return Fault(words_of(place), message, document.line(place))


# What a setting may be, read off its own type: so that no fault has to say "invalid value".


def legal_values(annotation: Any, metadata: Any = ()) -> str:
    """Words for the values of a type, e.g. ``a number, at least 0, below 1``.

    metadata: bounds that stand outside the type itself, as pydantic keeps those of a field.
    """
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return legal_values(parts[0], (*parts[1:], *metadata))
    if origin is Literal:
        words = "one of " + ", ".join(map(str, parts)) if len(parts) > 1 else str(parts[0])
    elif origin in (Union, UnionType):
        return " or ".join(legal_values(part, metadata) for part in parts if part is not NoneType)
    elif origin is tuple:
        words = f"a list in which each item is {legal_values(parts[0])}"
    elif origin is dict:
        words = "a mapping (key: value)"
    elif _is_record(annotation):
        words = f"a mapping with keys among {', '.join(keys_of(annotation))}"
    else:
        words = _PLAIN.get(annotation, "another value")
    return ", ".join([words, *_bounds(metadata)])


def _bounds(metadata: Any) -> Iterator[str]:
    for bound in metadata:
        match bound:
            case FieldInfo():
                yield from _bounds(bound.metadata)
            case Ge(ge=low):
                yield f"at least {low}"
            case Gt(gt=low):
                yield f"above {low}"
            case Le(le=high):
                yield f"at most {high}"
            case Lt(lt=high):
                yield f"below {high}"


def holds_text(annotation: Any) -> bool:
    """Whether plain characters here are meant as text.

    So for text itself, a choice among words, and the short form of a record: ``no`` then stays ``no``.
    """
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return holds_text(parts[0])
    if origin is Literal:
        return any(isinstance(part, str) for part in parts)
    if origin in (Union, UnionType):
        return any(holds_text(part) for part in parts)
    return annotation is str or _is_record(annotation)


def keys_of(annotation: Any) -> list[str]:
    """Keys of a record as a study file writes them; the record may stand in a union."""
    records = [part for part in (annotation, *get_args(annotation)) if _is_record(part)]
    return [setting.alias or name for record in records[:1] for name, setting in record.model_fields.items()]


def _annotation_at(place: Place) -> Any:
    """The type that the settings give to a place of the file; Any where they know no such place."""
    annotation: Any = Study
    for at, key in enumerate(place):
        override = at == 2 and place[0] == "sources" and isinstance(key, str) and _OVERRIDES.get(key)
        annotation = override or _inner_annotation(annotation, key)
    return annotation


def _inner_annotation(annotation: Any, key: str | int) -> Any:
    """The type of what stands at ``key`` inside a value of this type; Any where it is not known."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _inner_annotation(parts[0], key)
    if origin in (Union, UnionType):
        inner = (_inner_annotation(part, key) for part in parts if part is not NoneType)
        return next((annotation for annotation in inner if annotation is not Any), Any)
    if origin is tuple and isinstance(key, int):
        return parts[0]
    if origin is dict:  # or a list in its place, as of labels
        return parts[1]
    for name, setting in annotation.model_fields.items() if _is_record(annotation) else ():
        if (setting.alias or name) == key:
            metadata = setting.metadata
            return Annotated[setting.annotation, *metadata] if metadata else setting.annotation
    return Any


def _is_record(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
