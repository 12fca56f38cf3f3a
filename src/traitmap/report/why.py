"""The section of the page on why gains are what they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from traitmap.report import (
    dose_figures,
    explanation_figures,
    level_figures,
    profile_figures,
    relation_figures,
)
from traitmap.report.finding import Finding
from traitmap.report.reading import read
from traitmap.report.shown import Group, Shown
from traitmap.report.svg import clean
from traitmap.report.wording import counted, listed, share, typeset

if TYPE_CHECKING:
    from traitmap.analysis.explanation.records import Explanation
    from traitmap.analysis.profiles.record import Profile
    from traitmap.matrix import TransferMatrix


def why_part(
    matrix: TransferMatrix, profile: Profile | None, explanation: Explanation | None, missing: str = ""
) -> dict[str, Any]:
    """What ``why.html`` shows (key ``why``; None: no section), and cards for the headline (``findings``).

    missing: why there is no explanation, in a sentence.
    """
    if profile is None and explanation is None and not missing:
        return {"why": None, "findings": ()}
    groups = why_groups(matrix, profile, explanation)
    return {
        "why": {
            "groups": groups,
            "missing": missing,
            "odd": explanation_figures.odd_reasons(explanation) if explanation else (),
            "words": tuple(typeset(clean(said)) for said in explanation.words) if explanation else (),
            "warnings": explanation.warnings if explanation else (),
            "notes": profile.all_notes() if profile else (),
            "relations": bool(profile and profile.relations),
        },
        "findings": (_card(explanation),) if explanation and explanation.joint else (),
    }


def _card(found: Explanation) -> Finding:
    """The headline's card: what goes with gains once everything else is held constant."""
    told = [clean(one.name).replace("_", " ") for one in found.joint if one.verdict == "yes"]
    shares = [
        f"{one.group} properties explain {share(one.share)} (chance {share(one.null_mean)})"
        for one in found.dominance.groups
    ]
    words = f"Of the variance between {counted(found.pairs, 'pair')}, {listed(shares)}; "
    words += f"{share(found.dominance.unexplained)} is unexplained."
    return Finding(
        heading="Why",
        big=listed(told) if told else "nothing that can be told",
        words=("" if not told else f"{'Goes' if len(told) == 1 else 'Go'} with how much a pair gains. ")
        + words,
        wordy=True,
        link="why",
    )


def why_groups(
    matrix: TransferMatrix, profile: Profile | None, explanation: Explanation | None
) -> tuple[Group, ...]:
    """The figures of the section under their headings."""
    points = {target.name for target in read(matrix).targets if target.unit == "points"}
    groups = []
    if explanation is not None:
        groups.append(
            Group(
                "Between pairs of tasks",
                "What is known of a source and a target before anything is trained, held against the gains.",
                _there(
                    explanation_figures.effects(explanation),
                    explanation_figures.shares(explanation),
                    explanation_figures.odd_cells(explanation),
                    explanation_figures.asymmetry(explanation),
                    explanation_figures.strengths(explanation, "donors"),
                    explanation_figures.strengths(explanation, "recipients"),
                    level_figures.levels(explanation),
                ),
            )
        )
        groups.append(
            Group(
                "Changed sources",
                "Copies of a source in which one thing was changed: what differs between their adapters, "
                "that change has done.",
                _there(
                    dose_figures.dose_response(explanation.families),
                    dose_figures.answered_dose(explanation.families),
                    dose_figures.format_parts(explanation.families, points),
                ),
            )
        )
    if profile is not None:
        groups.append(
            Group(
                "The datasets themselves",
                "What the texts look like, whatever was trained on them.",
                _there(
                    profile_figures.output_lengths(profile),
                    profile_figures.label_lengths(profile),
                    profile_figures.class_shares(profile),
                    profile_figures.style(profile),
                    profile_figures.meaning(profile),
                    relation_figures.relations(profile),
                    relation_figures.relation_effects(profile),
                ),
            )
        )
    return tuple(group for group in groups if group.figures)


def _there(*figures: Shown | None) -> tuple[Shown, ...]:
    found: Iterable[Shown] = (one for one in figures if one is not None)
    return tuple(found)
