"""What a source looks like before anything is trained on it: counts, words, two examples, and warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from traitmap.data.records import Example, ServedAdapter
from traitmap.data.sources import LoadedSource, Variation


@dataclass(frozen=True)
class SourcePreview:
    """One source as `traitmap check` shows it.

    examples: how many will be trained on; available: how many there are before ``limit``.
    label_counts: examples of each label word (empty without labels).
    shown: two examples, of two different labels where there are labels.
    warnings: what is legal but seldom meant.
    adapter: the PEFT directory, or the adapter on a server, that is used instead of training, or None.
    variation: what was changed in which source, with a row before and after, or None.
    """

    name: str
    examples: int
    available: int
    label_counts: Mapping[str, int]
    shown: tuple[Example, ...]
    warnings: tuple[str, ...]
    adapter: Path | ServedAdapter | None
    variation: Variation | None = None


@dataclass(frozen=True)
class Lengths:
    """Tokens of a source's examples, prompt and completion together.

    median, longest: tokens of one example. cut: examples that are longer than training.max_length.
    """

    median: int
    longest: int
    cut: int


def lengths_of(counts: Sequence[int], max_length: int) -> Lengths:
    """Summary of the token counts of a source's examples (at least one)."""
    return Lengths(int(median(counts)), max(counts), sum(count > max_length for count in counts))


def preview_source(loaded: LoadedSource) -> SourcePreview:
    """Look at a loaded source."""
    return SourcePreview(
        name=loaded.name,
        examples=len(loaded.examples),
        available=loaded.available,
        label_counts=loaded.label_counts,
        shown=_two(loaded.examples),
        warnings=(*loaded.warnings, *_warnings(loaded.examples)),
        adapter=loaded.adapter,
        variation=loaded.variation,
    )


def _two(examples: Sequence[Example]) -> tuple[Example, ...]:
    first = examples[:1]
    others = (one for one in examples[1:] if one.label != examples[0].label)
    return (*first, *(examples[1:2] if (other := next(others, None)) is None else (other,)))


def _warnings(examples: Sequence[Example]) -> list[str]:
    total = f"{len(examples):,}"
    empty = sum(not example.completion.strip() for example in examples)
    joined = sum(_runs_together(example) for example in examples)
    spaced = sum(example.prompt.endswith(" ") for example in examples)
    repeated = len(examples) - len({example.segments for example in examples})
    found = []
    if empty:
        found.append(f"in {empty:,} of {total} examples there is nothing but blanks to learn")
    if joined:
        found.append(
            f"in {joined:,} of {total} examples the completion follows the prompt without a space or newline "
            "between; begin the completion with one"
        )
    if spaced:
        found.append(
            f"in {spaced:,} of {total} examples the prompt ends in a space, which most tokenizers put in "
            "front of the next word; move it to the beginning of the completion"
        )
    if repeated:
        found.append(f"{repeated:,} of {total} examples repeat an earlier one")
    return found


def _runs_together(example: Example) -> bool:
    prompt, completion = example.prompt, example.completion
    return bool(prompt and completion) and not (prompt[-1].isspace() or completion[0].isspace())
