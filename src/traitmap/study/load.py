"""What a setting may be, in words, read off its own type: so that no fault has to say "invalid value".

Read a study file; every fault of it at once, each with its line.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
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
from traitmap.study.rules import (
    Conflict,
    all_source_conflicts,
    duplicate_names,
    endpoint_conflicts,
    lineage_conflicts,
    model_conflicts,
    training_conflicts,
)
from traitmap.study.settings import Lora, Model, Settings, Source, Study, Target, Training, target_mapping

_PLAIN = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def legal_values(annotation: Any) -> str:
    """Words for the values of a type, e.g. ``a number, at least 0, below 1``."""
    return _described(annotation)


def holds_text(annotation: Any) -> bool:
    """Whether plain characters here are meant as text: text itself, a choice, the short form of a record."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return holds_text(parts[0])
    if origin is Literal:
        return any(isinstance(part, str) for part in parts)
    if origin in (Union, UnionType):
        return any(holds_text(part) for part in parts)
    return annotation is str or _is_record(annotation)


def inner_annotation(annotation: Any, key: str | int) -> Any:
    """The type of what stands at ``key`` inside a value of this type; Any where it is not known."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return inner_annotation(parts[0], key)
    if origin in (Union, UnionType):
        found = [inner_annotation(part, key) for part in parts if part is not NoneType]
        return next((each for each in found if each is not Any), Any)
    if origin is tuple and isinstance(key, int):
        return parts[0]
    if origin is dict and isinstance(key, str):
        return parts[1]
    setting = _field(annotation, key) if _is_record(annotation) else None
    if setting is not None:
        return Annotated[setting.annotation, *setting.metadata] if setting.metadata else setting.annotation
    return Any


def keys_of(annotation: Any) -> list[str]:
    """Keys of a record as a study file writes them; the record may stand in a union."""
    records = [annotation, *get_args(annotation)]
    fields: dict[str, FieldInfo] = next((record.model_fields for record in records if _is_record(record)), {})
    return [setting.alias or name for name, setting in fields.items()]


def _field(record: type[BaseModel], key: str | int) -> FieldInfo | None:
    found = (one for name, one in record.model_fields.items() if (one.alias or name) == key)
    return next(found, None)


def _is_record(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _described(annotation: Any, metadata: Any = ()) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _described(parts[0], (*parts[1:], *metadata))
    if origin is Literal:
        words = "one of " + ", ".join(map(str, parts)) if len(parts) > 1 else str(parts[0])
    elif origin in (Union, UnionType):
        return " or ".join(_described(part, metadata) for part in parts if part is not NoneType)
    elif origin is tuple:
        words = f"a list in which each item is {_described(parts[0])}"
    elif origin is dict:
        words = "a mapping (key: value)"
    elif _is_record(annotation):
        words = f"a mapping with keys among {', '.join(keys_of(annotation))}"
    else:
        words = _PLAIN.get(annotation, "another value")
    return ", ".join([words, *_bounds(metadata)])


def _bounds(metadata: Any) -> list[str]:
    found: list[str] = []
    for each in metadata:
        match each:
            case FieldInfo():
                found.extend(_bounds(each.metadata))
            case Ge(ge=low):
                found.append(f"at least {low}")
            case Gt(gt=low):
                found.append(f"above {low}")
            case Le(le=high):
                found.append(f"at most {high}")
            case Lt(lt=high):
                found.append(f"below {high}")
    return found


_LARGEST_FILE = 1_000_000
_OVERRIDES: dict[str, type[Settings]] = {"training": Training, "lora": Lora}
_EXAMPLES = {
    "name": "name: my-study",
    "model": "model: org/name, or model: builtin:mini",
    "sources": "sources: a list, each with name and one of path, task, adapter, served_as, from, concat",
    "targets": "targets: a list of lm-eval tasks, such as - gsm8k",
    "task": "task: gsm8k",
    "path": "path: org/name",
}
Record = TypeVar("Record", bound=Settings)


@dataclass(frozen=True)
class StudyDraft:
    """A study file as far as it could be read.

    study: the study, or None where there is any fault.
    model, sources, targets: those parts that are in order by themselves, sources and targets by
        their position in the file; include_path, sample_seed, data: as given, else their defaults.
    faults: everything wrong with the file itself; data that the study names is not looked at.
    """

    path: Path
    faults: tuple[Fault, ...]
    study: Study | None = None
    model: Model | None = None
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
    """The study in a YAML file. StudyError with every fault of the file."""
    draft = read_draft(path)
    if draft.study is None:
        raise StudyError(str(path), draft.faults)
    return draft.study


def read_draft(path: str | Path) -> StudyDraft:
    """Read a study file as far as it goes. Never raises for what stands in the file."""
    file = Path(os.path.abspath(os.path.expanduser(path)))
    text = _text_of(file)
    if isinstance(text, Fault):
        return StudyDraft(file, (text,))
    document = read_document(text, _holds_text)
    if not isinstance(document.data, dict):
        wrong = Fault(
            "study", f"{_shown(document.data)} is no study: give keys such as name, model, sources", 1
        )
        return StudyDraft(file, document.faults or (wrong,), document=document)
    return _draft(file, document)


def _draft(file: Path, document: Document) -> StudyDraft:
    data = {key: value for key, value in document.data.items() if key != "path"}
    faults = list(document.faults)
    if "path" in document.data:
        faults.append(_at(document, ("path",), _unknown_key("path", Study)))
    study: Study | None = None
    try:
        study = Study.model_validate({**data, "path": file})
    except ValidationError as error:
        faults.extend(_validation_faults(document, error))
    faults.extend(_at(document, place, message) for place, message in _conflicts(data))
    faults = list(dict.fromkeys(faults))
    return StudyDraft(
        path=file,
        faults=tuple(faults),
        study=None if faults else study,
        model=_in_order(Model, data.get("model")),
        sources=_all_in_order(Source, data.get("sources")),
        targets=_all_in_order(Target, data.get("targets")),
        include_path=_texts(data.get("include_path")),
        sample_seed=data["sample_seed"] if type(data.get("sample_seed")) is int else 0,
        data=data["data"] if isinstance(data.get("data"), str) and data["data"].strip() else None,
        document=document,
    )


def _text_of(file: Path) -> str | Fault:
    advice = "`traitmap init FOLDER` writes a study to edit"
    try:
        if os.path.isdir(file):
            return Fault("study", f"{file} is a folder; give the file in it, such as {file / 'study.yaml'}")
        if os.path.getsize(file) > _LARGEST_FILE:
            return Fault(
                "study", f"larger than {_LARGEST_FILE:,} bytes, so hardly a study file; check the path"
            )
        return file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return Fault("study", f"there is no such file; check the path, or {advice}")
    except UnicodeDecodeError as error:
        return Fault("study", f"not UTF-8 text (byte {error.start}); save the file as UTF-8")
    except (OSError, ValueError) as error:
        return Fault("study", f"it cannot be read: {error}")


def _in_order(record: type[Record], given: Any) -> Record | None:
    try:
        return record.model_validate(given)
    except ValidationError:
        return None


def _all_in_order(record: type[Record], given: Any) -> dict[int, Record]:
    items = enumerate(given) if isinstance(given, list) else ()
    checked = ((at, _in_order(record, item)) for at, item in items)
    return {at: item for at, item in checked if item is not None}


def _texts(given: Any) -> tuple[str, ...]:
    return tuple(item for item in given if isinstance(item, str)) if isinstance(given, list) else ()


def _annotation_at(place: Place) -> Any:
    """The type that the settings give to a place of the file; Any where they know no such place."""
    annotation: Any = Study
    for at, key in enumerate(place):
        override = at == 2 and place[0] == "sources" and isinstance(key, str) and _OVERRIDES.get(key)
        annotation = override or inner_annotation(annotation, key)
    return annotation


def _holds_text(place: Place) -> bool:
    return holds_text(_annotation_at(place))


def _conflicts(data: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    """What the settings' own checks leave out wherever a type beside it is wrong."""
    sources = data.get("sources")
    for at, source in enumerate(sources if isinstance(sources, list) else ()):
        if isinstance(source, dict):
            yield from _placed(all_source_conflicts(source), ("sources", at))
            if isinstance(source.get("training"), dict):
                yield from _placed(training_conflicts(source["training"]), ("sources", at, "training"))
    for at, key, message in lineage_conflicts(sources if isinstance(sources, list) else ()):
        yield ("sources", at, key), message
    model: Any = data.get("model") if isinstance(data.get("model"), dict) else {}
    yield from _placed(model_conflicts(model), ("model",))
    every = sources if isinstance(sources, list) else ()
    for at, key, message in endpoint_conflicts(model.get("endpoint"), every):
        yield ("sources", at, key), message
    if isinstance(data.get("training"), dict):
        yield from _placed(training_conflicts(data["training"]), ("training",))
    for listed in ("sources", "targets"):
        items = data.get(listed)
        named = [target_mapping(item) for item in items] if isinstance(items, list) else []
        names = [item.get("name") if isinstance(item, dict) else None for item in named]
        for at, message in duplicate_names(names, listed):
            yield (listed, at, "name"), message


def _placed(conflicts: Iterable[Conflict], place: Place) -> Iterator[tuple[Place, str]]:
    return (((*place, conflict.key) if conflict.key else place, conflict.message) for conflict in conflicts)


def _validation_faults(document: Document, error: ValidationError) -> Iterator[Fault]:
    for wrong in error.errors(include_url=False):
        place, kind = tuple(wrong["loc"]), wrong["type"]
        if kind == "extra_forbidden":
            yield _at(document, place, _unknown_key(str(place[-1]), _annotation_at(place[:-1])))
        elif kind == "missing":
            yield _at(document, place, _missing_key(str(place[-1])))
        elif kind == "told":
            yield _at(document, _known(document, place), wrong["msg"])
        else:
            known = _known(document, place)
            yield _at(document, known, _illegal(_value_at(document.data, known), _annotation_at(known)))


def _known(document: Document, place: Place) -> Place:
    """A place without the parts that pydantic adds for the members of a union and its own checks."""
    while place and place not in document.lines and _annotation_at(place) is Any:
        place = place[:-1]
    return place


def _value_at(data: Any, place: Place) -> Any:
    for key in place:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _illegal(value: Any, annotation: Any) -> str:
    return f"{_shown(value)} is not legal; give {legal_values(annotation)}"


def _unknown_key(key: str, settings: Any) -> str:
    legal = _legal_keys(settings)
    close = get_close_matches(key, legal, n=1)
    guess = f"; did you mean {close[0]}?" if close else ";"
    return f"unknown key {key!r}{guess} legal here: {', '.join(legal)}"


def _legal_keys(settings: Any) -> list[str]:
    return [key for key in keys_of(settings) if (settings, key) != (Study, "path")]


def _missing_key(key: str) -> str:
    example = _EXAMPLES.get(key)
    return f"required, but not given; write {example}" if example else "required, but not given"


def _shown(value: Any) -> str:
    if value is None:
        return "an empty value"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _at(document: Document, place: Place, message: str) -> Fault:
    return Fault(words_of(place), message, document.line(place))
