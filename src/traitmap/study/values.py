"""What one value of a study file may be, and the base of all its mappings.

First the checks that one value allows, with the words of their faults, then the types made of them. Rules
that need more than one setting stand in `study.rules`, the mappings themselves in `study.settings`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from traitmap.study.derived import MERGE_METHODS, Conflict
from traitmap.study.rules import url_fault
from traitmap.study.template import syntax_fault

# Context of a validation whose caller runs the rules by itself, over all parts of a file.
RULES_APART = {"rules": "apart"}
BASELINE = "__baseline__"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_MOST_SEEDS = 1000
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)  # of Windows


def _fault(message: str) -> PydanticCustomError:
    """A fault in words of ours, which the reader of a study file hands on as they are."""
    return PydanticCustomError("fault", "{message}", {"message": message})


class Settings(BaseModel):
    """One mapping of a study file: frozen, and no key that is not known.

    Whatever is built in Python is checked against the rules too, once its values are legal. Who reads a file
    gives the context ``RULES_APART`` and runs them over the whole file, also where a value is not legal.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_by_name=True, serialize_by_alias=True
    )

    _short: ClassVar[str] = ""  # the key that a plain text is short for

    @model_validator(mode="before")
    @classmethod
    def _from_short_form(cls, value: Any) -> Any:
        return {cls._short: value} if cls._short and isinstance(value, str) else value

    def conflicts(self) -> Iterable[Conflict]:
        """Settings of this mapping that do not go together: the places in it, and what to do there.

        Nothing where no rule is about this kind of mapping.
        """
        return ()

    @model_validator(mode="after")
    def _keep_rules(self, info: ValidationInfo) -> Self:
        conflicts = () if info.context == RULES_APART else self.conflicts()
        faults = [
            InitErrorDetails(type=_fault(message), loc=place, input=None) for place, message in conflicts
        ]
        if faults:
            raise ValidationError.from_exception_data(type(self).__name__, faults)
        return self


def _number(value: Any) -> Any:
    """YAML 1.1 reads ``5e-5`` as text and ``yes`` as 1; to us the first is a number, the second is not."""
    if isinstance(value, bool):
        raise ValueError("true and false are not numbers")
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _safe_name(name: str) -> str:
    if name == BASELINE:
        raise _fault(f"{name!r} is reserved for the base model; choose another name")
    if not _NAME.fullmatch(name):
        raise _fault(
            f"{name!r} cannot be a name, since names become file names: use letters a-z and A-Z, digits and "
            ". _ - (at most 100, no dot in front)"
        )
    if _DEVICE.fullmatch(name):
        raise _fault(f"{name!r} is a device on Windows, so no file there can have this name; choose another")
    return name


def _row_name(name: str) -> str:
    source, at, step = name.partition("@")
    if at and not (step.isdecimal() and int(step) > 0):
        raise _fault(f"{name!r} is no checkpoint; write the source, @ and the step, such as {source}@30")
    _safe_name(source)
    return name


def _require(legal: Callable[[Any], Any], message: str) -> AfterValidator:
    """A check of one value whose type is right: ``legal(value)`` must hold, else the fault is ``message``."""

    def check(value: Any) -> Any:
        if not legal(value):
            raise _fault(message)
        return value

    return AfterValidator(check)


def _server_url(text: str) -> str:
    if message := url_fault(text):
        raise _fault(message)
    return text.rstrip("/")


def _template(text: str) -> str:
    if not text:
        raise _fault("the template is empty; write it or remove the key")
    fault = syntax_fault(text)
    if fault:
        raise _fault(f"not a Jinja template: {fault}; columns are written as {{{{ column }}}}")
    return text


def _repeated(values: Iterable[Any]) -> list[Any]:
    """What stands more than once, sorted; at most ten of them."""
    return sorted(value for value, count in Counter(values).items() if count > 1)[:10]


def _from_words(labels: Any) -> Any:
    """A list of words is short for words that stand for themselves, or for the numbers 0, 1, ... in order."""
    if not isinstance(labels, list | tuple) or not all(isinstance(word, str) for word in labels):
        return labels
    if repeated := _repeated(labels):
        raise _fault(f"{', '.join(map(repr, repeated))} stands more than once; give each word once")
    return {word: word for word in labels}


def _label_words(labels: dict[str, str]) -> dict[str, str]:
    if not labels:
        raise _fault("no words are given; write one line per value, such as 1: positive")
    for value, word in labels.items():
        if not word.strip():
            raise _fault(f"the value {value!r} has an empty word; give one")
    return labels


def _answer_words(words: dict[str, str]) -> dict[str, str]:
    if repeated := _repeated([word.strip() for word in _label_words(words).values()]):
        raise _fault(
            f"{', '.join(map(repr, repeated))} would be the answer of two classes; give each its own word"
        )
    return {label: word.strip() for label, word in words.items()}


def _pattern(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise _fault(f"not a regular expression: {error}") from None
    if groups > 1:
        raise _fault(
            f"it has {groups} groups in (), so which is the answer? Keep one, write (?:...) for others"
        )
    return text


def _truth(value: Any) -> Any:
    """true and false where text is legal too, which a file's reader hands on as it stands."""
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


def _columns(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def distinct_seeds(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(seeds) > _MOST_SEEDS:
        raise _fault(
            f"{len(seeds):,} seeds; legal: at most {_MOST_SEEDS:,}, since every source is trained with "
            "each of them"
        )
    if repeated := _repeated(seeds):
        raise _fault(
            f"{', '.join(map(str, repeated))} stands more than once; the same seed gives the same adapter"
        )
    return seeds


def override(record: type[BaseModel], settings: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    """Settings of one source, checked as the study's own are; only the keys that it gives."""
    checked = record.model_validate(settings, context=info.context)
    return {key: getattr(checked, key) for key in settings}


# not pydantic's min_length, which calls a list empty when all its items are at fault
NOT_EMPTY = _require(len, "the list is empty; give at least one")
Name = Annotated[str, AfterValidator(_safe_name)]
RowName = Annotated[str, AfterValidator(_row_name)]  # a source, or a checkpoint of it
Text = Annotated[str, _require(str.strip, "it is empty; give text or remove the key")]
TruthOrText = Annotated[bool | Text, BeforeValidator(_truth)]
Url = Annotated[str, AfterValidator(_server_url)]
LabelWords = Annotated[dict[str, str], BeforeValidator(_from_words), AfterValidator(_label_words)]
AnswerWords = Annotated[dict[str, str], AfterValidator(_answer_words)]
Pattern = Annotated[Text, AfterValidator(_pattern)]
Stops = Annotated[
    tuple[str, ...],
    BeforeValidator(_columns),
    NOT_EMPTY,
    _require(all, "an empty text would end every answer at once; remove it"),
]
ColumnOrColumns = Annotated[tuple[Text, ...], BeforeValidator(_columns), NOT_EMPTY]
TemplateText = Annotated[str, AfterValidator(_template)]
Number = Annotated[float, BeforeValidator(_number)]
Whole = Annotated[int, BeforeValidator(_number)]
# Beyond these bounds a number is a slip of the pen, and what is made of it overflows or fills the memory.
Positive = Annotated[Number, Field(gt=0, le=1e9)]
Signed = Annotated[Number, Field(ge=-1e9, le=1e9)]
Part = Annotated[Number, Field(gt=0, lt=1)]
Share = Annotated[Number, Field(ge=0, lt=1)]
Precision = Annotated[Number, Field(gt=0, le=1e6)]
Count = Annotated[Whole, Field(ge=1, le=10**12)]
Rank = Annotated[Whole, Field(ge=1, le=65_536)]
Steps = Annotated[Whole, Field(ge=1, le=10**7)]
Shots = Annotated[Whole, Field(ge=0, le=10_000)]
Seed = Annotated[Whole, Field(ge=0, lt=2**32)]
Rate = Annotated[Number, Field(gt=0, le=1)]
Quantile = Annotated[Number, Field(ge=0, le=1)]
Weight = Annotated[Number, Field(ge=0, le=1e9)]
ShareOrCount = Annotated[
    Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)], BeforeValidator(_number)
]
CLASS_WEIGHTS = _require(
    lambda weights: any(weights.values()),
    "no class has a weight above 0; give each label word its weight, such as positive: 4",
)
MIXTURE = _require(
    lambda weights: len(weights) > 1,
    "a mixture needs at least two sources; give each name its weight, such as {a: 1, b: 3}",
)
QUANTILES = _require(
    lambda limits: len(limits) == 2 and limits[0] < limits[1],
    "give two shares, the lower one first, such as [0, 0.5] for the shorter half",
)
MergeMethodName = Annotated[
    str,
    _require(
        lambda name: name in MERGE_METHODS,
        f"no such method; legal: {', '.join(MERGE_METHODS)} (PEFT's add_weighted_adapter)",
    ),
]
CountOrName = Annotated[Count | Name, BeforeValidator(_number)]
