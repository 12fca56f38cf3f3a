"""The section of the page on which source to train on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from traitmap.report import recommendation_figures
from traitmap.report.finding import Finding
from traitmap.report.shown import Shown
from traitmap.report.svg import clean
from traitmap.report.wording import counted, interval, signed, typeset

if TYPE_CHECKING:
    from traitmap.analysis.recommendation.held_out import HeldOut
    from traitmap.matrix import TransferMatrix


def which_part(
    matrix: TransferMatrix, recommendation: object | None, evaluation: HeldOut | None, missing: str = ""
) -> dict[str, Any]:
    """What ``which.html`` shows (key ``which``; None: no section), and cards for the headline (``findings``).

    evaluation: what would have been recommended for each target, and what came of it. missing: why there is
    none, in a sentence.
    """
    if evaluation is None and not missing:
        return {"which": None, "findings": ()}
    told: dict[str, Any] = {"missing": missing, "figures": (), "rankings": (), "impossible": (), "unsure": ""}
    if evaluation is not None:
        told |= {
            "figures": which_figures(evaluation),
            "rankings": recommendation_figures.rankings(evaluation),
            "impossible": tuple((clean(name), clean(why)) for name, why in evaluation.impossible.items()),
            "unsure": _unsure(evaluation),
        }
    return {"which": told, "findings": (_card(evaluation),) if evaluation and evaluation.targets > 1 else ()}


def which_figures(evaluation: HeldOut) -> tuple[Shown, ...]:
    """The figures over all targets."""
    found = (
        recommendation_figures.picks(evaluation),
        recommendation_figures.regret(evaluation),
        recommendation_figures.predicted(evaluation),
    )
    return tuple(one for one in found if one is not None)


def _unsure(found: HeldOut) -> str:
    """Targets by verdict, in a sentence."""
    unsure = [clean(one.target) for one in found.recommendations if one.verdict == "cannot tell"]
    count = len(found.recommendations)
    if not unsure:
        return ""
    if len(unsure) == count:
        return f"On none of {counted(count, 'target')} can the best three sources be told apart."
    return f"On {len(unsure)} of {counted(count, 'target')} the best three sources are within noise."


def _card(found: HeldOut) -> Finding:
    """The headline's card: whether the recommender beats popularity here."""
    saved = found.saved
    ends = interval(saved.low, saved.high)
    sure = saved.low > 0 or saved.high < 0
    words = (
        f"The recommender's first picks give {signed(saved.value)} points {ends} against those of "
        f"popularity, over {counted(found.targets, 'hidden target')}."
    )
    return Finding(
        heading="Which source",
        big=("better than popularity" if saved.value > 0 else "worse than popularity")
        if sure
        else "no better than popularity, as far as can be told",
        words=typeset(words),
        wordy=True,
        link="which",
    )
