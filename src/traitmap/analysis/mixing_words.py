"""What is proposed of combinations, in sentences; each says what is there and no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from traitmap.analysis.combination import CONCAT, MERGE, Kind
from traitmap.analysis.interference import interference_lines
from traitmap.wording import counted, estimate, listed

if TYPE_CHECKING:
    from traitmap.analysis.mixing import Mix


def _margins(mix: Mix) -> str:
    """``2 on imdb and sst2``, or each by itself where targets have several units."""
    if set(mix.margins.values()) <= {mix.margin}:
        return f"{mix.margin:g} on {listed(mix.keep)}"
    return listed([f"{margin:.2g} on {name}" for name, margin in mix.margins.items()])


def mix_lines(mix: Mix) -> list[tuple[str, str]]:
    """Pick, safety, what it rests on, next: one sentence each."""
    names = listed(mix.targets)
    if (pick := mix.pick) is not None:
        first = (
            f"{pick.combination.words} ({pick.combination.way}): {pick.status} "
            f"{estimate(pick.gain, mix.digits)} {mix.unit} on {names}, {estimate(pick.lead, mix.digits)} "
            f"beyond {mix.single.source if mix.single else 'nothing'}"
        )
    else:
        first = (
            f"cannot tell that any of {counted(mix.candidates, 'combination')} beats one source on {names}"
        )
        if mix.proposals:
            top = mix.proposals[0]
            first += (
                f"; the first, {top.combination.words} ({top.combination.way}), is {top.status} at "
                f"{estimate(top.gain, mix.digits)}"
            )
    lines = [("take", first), ("beside", _beside(mix))]
    if mix.keep:
        safe = sum(one.safe == "yes" for one in mix.proposals)
        kept = f"lose at most {_margins(mix)}"
        words = f"{safe} of {len(mix.proposals)} shown {kept}, at 5 % over all of these targets"
        lines.append(
            ("no harm", words if safe else f"of none that is shown can be told that it would {kept}")
        )
    lines.append(("rests on", f"{mix.rests_on}; {models_words(mix.model)}"))
    if mix.probes:
        shown = listed([f"{one.combination.words} ({one.combination.way})" for one in mix.probes])
        lines.append(("measure next", shown))
    if mix.interference is not None:
        lines += interference_lines(mix.interference)
    return lines


def _beside(mix: Mix) -> str:
    """The best single sources."""
    if (single := mix.single) is None:
        return "no single source has all of these targets measured"
    words = f"the best single source is {single.source}, {estimate(single.gain, mix.digits)} {mix.unit}"
    if not mix.keep or single.safe == "yes":
        return words
    if (safe := mix.safe_single) is None:
        return f"{words}; of none can be told that it keeps {listed(mix.keep)}"
    return (
        f"{words}, which may harm what is to be kept; the best that does not is {safe.source}, "
        f"{estimate(safe.gain, mix.digits)}"
    )


def models_words(models: Mapping[Kind, str]) -> str:
    """Which model predicts which kind, in words."""
    if not models:
        return "predicted by the mean of the parents"
    names = {CONCAT: "mixtures", MERGE: "merges"}
    return "; ".join(f"{names[kind]} predicted by {MODELS[model][1]}" for kind, model in models.items())


MODELS = {  # a label, and words for a sentence
    "zero": ("no change", "no change at all"),
    "best parent": ("best parent", "the best parent"),
    "mean": ("mean of parents", "the mean of the parents"),
    "lead": ("mean, best", "the mean of the parents, part of the way to the best"),
    "parents": ("mean, best, worst", "mean, best and worst of the parents"),
    "ways": (
        "mean, best by method",
        "the mean of the parents, part of the way to the best for each way of combining",
    ),
    "traits": ("low rank", "the parents and their leading components"),
    "weights": ("update similarity", "the parents and how alike their updates are"),
    "own effects": (
        "source, target effects",
        "the parents and what targets and parents showed in other combinations",
    ),
}
