"""The paper's figures from the real run: lengths, confusion matrices, label lengths, style and meaning.

python docs/real_figures.py runs/real

Tables in Markdown for docs/real-run.md; intervals are 95 %.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import traitmap as tm

SOURCES = (
    *("gsm8k", "goat_style", "code_alpaca", "mnli", "paws"),
    *("toxicity_civil", "flipkart", "flipkart_balanced", "amazon_reviews", "imdb"),
)
CONFUSIONS = (
    *(("flipkart", "flipkart"), ("flipkart_balanced", "flipkart")),
    *(("flipkart", "imdb"), ("flipkart_balanced", "imdb")),
    *(("imdb", "flipkart"), ("toxicity_civil", "flipkart")),
    *(("amazon_reviews", "amazon_reviews"), ("amazon_wrong", "amazon_reviews")),
)
LENGTHS = ("gsm8k_exact", "goat_exact")


def interval(told: Mapping[str, Any], factor: float = 1.0, digits: int = 1) -> str:
    """``12.3 [4.5, 6.7]``; a dash where it is not known."""
    if told["value"] is None:
        return "–"
    value = f"{factor * told['value']:.{digits}f}"
    if told["low"] is None:
        return value
    return f"{value} [{factor * told['low']:.{digits}f}, {factor * told['high']:.{digits}f}]"


def confusions(cells: Mapping[str, Any]) -> Iterator[str]:
    """Counts over both seeds, rows true, and what the metrics make of them."""
    yield "| source, target | answers in columns, truth in rows | accuracy | balanced | macro-F1 | kappa |"
    yield "|---|---|---|---|---|---|"
    found = {(one["source"], one["target"], one["seed"]): one["adapter"] for one in cells["classes"]}
    for source, target in CONFUSIONS:
        one = found[source, target, None]
        labels = ", ".join(one["labels"])
        columns = one["columns"].index(one["labels"][0]), len(one["labels"])
        rows = [row[columns[0] : columns[0] + columns[1]] for row in one["counts"]]
        counts = " / ".join(" ".join(f"{count:.0f}" for count in row) for row in rows)
        metrics = [interval(one[key], 100) for key in ("accuracy", "balanced_accuracy", "macro_f1", "kappa")]
        yield f"| {source}, {target} | {labels}: {counts} | {' | '.join(metrics)} |"


def lengths(cells: Mapping[str, Any]) -> Iterator[str]:
    """Characters of written answers, the way from base to source, and what never stops."""
    yield "| source, target | base | adapter | source | on the way | never stops |"
    yield "|---|---|---|---|---|---|"
    for one in cells["lengths"]:
        if one["target"] in LENGTHS and one["seed"] is None and one["characters"]:
            unit = one["characters"]
            means = [
                f"{unit[key]['mean']:.0f}" if unit[key] else "–" for key in ("base", "adapter", "source")
            ]
            way = interval(unit["interpolation"], 100, 0)
            endless = interval(one["endless"], 100, 0)
            yield f"| {one['source']}, {one['target']} | {' | '.join(means)} | {way} | {endless} |"


def label_lengths(datasets: Mapping[str, Any]) -> Iterator[str]:
    """Words of an input by its label."""
    yield "| source | mean words of an input, by label |"
    yield "|---|---|"
    for name in SOURCES:
        told = datasets[name]["lengths"]["input_by_label"]
        if told:
            words = ", ".join(
                f"{label} {one['mean']:.1f} (sd {one['sd']:.1f})" for label, one in told.items()
            )
            yield f"| {name} | {words} |"


def square(values: Sequence[Sequence[float]] | Mapping[str, Any]) -> Iterator[str]:
    """The ten sources against each other."""
    yield "| | " + " | ".join(SOURCES) + " |"
    yield "|---" * (len(SOURCES) + 1) + "|"
    for one in SOURCES:
        row = [values[one][other] for other in SOURCES]  # type: ignore[call-overload]
        yield f"| {one} | " + " | ".join("–" if x is None else f"{x:.2f}" for x in row) + " |"


def asymmetry(run: str) -> Iterator[str]:
    """The ten largest differences between two directions, in standard deviations of the target."""
    yield "| from, to | gain | gain back | difference | q |"
    yield "|---|---|---|---|---|"
    told = [one for one in tm.explain(run).to_json()["asymmetry"]["pairs"] if one["q"] is not None]
    for one in sorted(told, key=lambda one: one["q"])[:8]:
        gains = f"{one['forward']:.2f} | {one['backward']:.2f} | {interval(one['difference'], 1, 2)}"
        yield f"| {one['first']}, {one['second']} | {gains} | {one['q']:.3f} |"


def main(run: str) -> None:
    found = tm.profile(run).to_json()
    parts = {
        "Confusion matrices": confusions(found["cells"]),
        "Lengths": lengths(found["cells"]),
        "Label lengths": label_lengths(found["datasets"]),
        "Style, cosine": square(found["style"]["cosine"]),
        "Meaning, cosine": square(found["semantics"]["cosine"]),
        "Asymmetry": asymmetry(run),
    }
    for title, lines in parts.items():
        print(f"### {title}\n", *lines, "", sep="\n")


if __name__ == "__main__":
    main(sys.argv[1])
