"""Small records of a profile, an explanation and recommendations, with known numbers in them."""

from __future__ import annotations

from dataclasses import replace
from math import nan

import numpy as np

from traitmap.analysis.explanation.dose import FormatPart, dose_response
from traitmap.analysis.explanation.families import AnsweredCurve, DoseCurve, Families
from traitmap.analysis.explanation.permutation import Mantel
from traitmap.analysis.explanation.records import (
    AsymmetricPair,
    Asymmetry,
    Dominance,
    Explanation,
    FeatureEffect,
    GroupShare,
    LevelEffect,
    OddCell,
    OddCells,
    Strength,
)
from traitmap.analysis.profiles.datasets import profile_datasets
from traitmap.analysis.profiles.pairs import Reason
from traitmap.analysis.profiles.parser import Relations
from traitmap.analysis.profiles.record import Profile
from traitmap.analysis.profiles.relations import RelationEffect, RelationEffects
from traitmap.analysis.recommendation.held_out import HeldOut, judged
from traitmap.analysis.recommendation.records import Advice, Recommendation, SetAside
from traitmap.analysis.traits.records import TraitWarning
from traitmap.data.texts import TaskText
from traitmap.matrix.statistics import Interval, unknown

SOURCES = ("reviews", "sums", "stories")
TARGETS = ("reviews", "sums", "riddles")


def effect(
    name: str, value: float, *, q: float = 0.4, group: str = "hidden", **more: object
) -> FeatureEffect:
    interval = Interval(value, value - 0.2, value + 0.2) if value == value else unknown("too few pairs")
    fields = {
        "name": name,
        "group": group,
        "words": f"alike in {name}",
        "effect": interval,
        "p": q / 2,
        "q": q,
        "detectable": 0.35,
        "collinearity": 0.1,
        "by_itself": interval,
        "p_by_itself": q / 2,
        "known": 1.0,
        "members": (name,),
        "mantel": Mantel(0.1, 0.3, 0.01),
        "verdict": "yes" if q < 0.05 else "cannot tell",
    }
    return FeatureEffect(**{**fields, **more})  # type: ignore[arg-type]


def odd_cell(source: str, target: str, gain: float, predicted: float, reason: str = "") -> OddCell:
    apart = gain - predicted
    return OddCell(
        source=source,
        target=target,
        gain=gain,
        predicted=predicted,
        departure=Interval(apart, apart - 2, apart + 2),
        p_noise=0.001,
        q_noise=0.004,
        studentised=3.0,
        q_scatter=0.03,
        reasons=(Reason("length", reason, 1.0, True),) if reason else (),
    )


def explanation(families: Families | None = None) -> Explanation:
    strong = Interval(0.8, 0.4, 0.95)
    odd = odd_cell("sums", "reviews", -12.5, 1.5, "outputs are 9 words too short")
    pairs = (
        AsymmetricPair("reviews", "sums", 5.0, -3.0, Interval(8.0, 4.0, 12.0), 0.001, 0.003),
        AsymmetricPair("reviews", "stories", 1.0, 0.5, Interval(0.5, -4.0, 5.0), 0.8, 0.8),
    )
    return Explanation(
        sources=SOURCES,
        targets=TARGETS,
        pairs=6,
        own=(("reviews", "reviews"), ("sums", "sums")),
        scheme="joint",
        permutations=999,
        joint=(effect("output length", 0.61, q=0.012), effect("style", -0.07, group="surface")),
        alone=(effect("output_length_distance", 0.58, q=0.02), effect("mmd", nan, group="surface")),
        levels=(
            LevelEffect(
                "output_length", "hidden", "long outputs", "source", strong, 0.004, 0.02, 0.5, 9, "yes"
            ),
            LevelEffect(
                "size", "size", "many texts", "target", unknown("all alike"), nan, nan, nan, 9, "cannot tell"
            ),
        ),
        dominance=Dominance(
            groups=(
                GroupShare(
                    "hidden", ("output length",), 0.21, 0.04, 0.11, 0.01, Interval(0.17, 0.05, 0.3), "yes"
                ),
                GroupShare("surface", ("style",), 0.03, 0.02, 0.06, 0.4, Interval(0.01, -0.04, 0.05), "no"),
            ),
            unexplained=0.76,
            unexplained_beyond=Interval(0.8, 0.7, 0.9),
            hidden_less_surface=Interval(0.16, -0.02, 0.3),
            verdict="cannot tell",
        ),
        odd=OddCells((odd,), (odd, odd_cell("stories", "sums", 2.0, 1.0)), 6, 1, 0.07),
        asymmetry=Asymmetry(pairs, Interval(0.1, -0.4, 0.5), 0.7, 0.6),
        donors=tuple(
            Strength(name, Interval(value, value - 1, value + 1), -1.5, 1.5, 0.01, q)
            for name, value, q in (("reviews", 2.5, 0.01), ("sums", 0.3, 0.8), ("stories", -2.8, 0.02))
        ),
        recipients=(Strength("riddles", unknown("one source only"), nan, nan, nan, nan),),
        words=("Output length: yes.",),
        families=families if families is not None else some_families(),
        warnings=(TraitWarning("few_tasks", "with 4 tasks most questions have no answer", "add tasks"),),
        conditions={"units": "points", "seed": 0},
    )


def some_families() -> Families:
    rng = np.random.default_rng(0)
    doses = (0.0, 0.5, 1.0)
    falling = np.stack([(rng.random((3, 80)) < share) * 1.0 for share in (0.9, 0.5, 0.1)])
    flat = np.stack([(rng.random((3, 80)) < 0.5) * 1.0 for _ in doses])
    responses = [
        dose_response(doses, table, measure="the score", dose="share of wrong labels")
        for table in (falling, flat)
    ]
    names = ("reviews", "half wrong", "wrong")
    curves = tuple(
        DoseCurve("reviews", "mislabel", "share of wrong labels", target, names, response, q)
        for target, response, q in zip(("reviews", "sums"), responses, (0.001, 0.7), strict=True)
    )
    part = FormatPart(
        "reviews",
        "reviews",
        "reviews_format",
        Interval(0.2, 0.15, 0.25),
        Interval(0.05, 0.01, 0.09),
        Interval(0.15, 0.1, 0.2),
        Interval(0.25, 0.1, 0.4),
        0.001,
        0.002,
        "content",
        0.04,
    )
    return Families(
        curves=curves,
        format=(part,),
        answered=(AnsweredCurve("reviews", "answers good", names, responses[0], 0.001),),
    )


def texts(seed: int = 0, items: int = 24) -> dict[str, list[TaskText]]:
    rng = np.random.default_rng(seed)
    words = ("red", "blue", "river", "stone", "cat", "seven", "walks", "under", "quiet", "night")

    def said(count: int) -> str:
        return " ".join(rng.choice(words, size=count)) + "."

    labelled = [
        TaskText(
            input=said(5 if at % 3 else 15),
            output="good" if at % 3 else "bad",
            label="good" if at % 3 else "bad",
        )
        for at in range(items)
    ]
    return {
        "reviews": labelled,
        "sums": [TaskText(input=f"{at} + {at + 1} =", output=str(2 * at + 1)) for at in range(items)],
        "stories": [TaskText(input=said(4), output=said(int(rng.integers(20, 60)))) for _ in range(items)],
        "riddles": [TaskText(input=said(9), output=said(2)) for _ in range(items)],
    }


def profile() -> Profile:
    some = texts()
    roles = {name: "target" if name == "riddles" else "source" for name in some}
    return Profile(
        kind="texts",
        roles=roles,
        tasks={name: name for name in some},
        comparison=profile_datasets(some, permutations=19),
    )


def parsed_profile() -> Profile:
    """With relations of two datasets, and two tests of which one stands."""

    def relations(object_in: int) -> Relations:
        counts = np.ones((4, 2), dtype=np.int32)
        counts[object_in:, 1] = 0
        where = np.arange(4)
        return Relations("blank", "UD", {}, ("nsubj", "obj"), counts, where, 4, np.full(4, 5))

    gap = Interval(0.21, 0.1, 0.32)
    stands = RelationEffect("sums", "reviews", "obj", 12, 12, difference=gap, p=0.001, q=0.002, p_within=0.01)
    falls = RelationEffect(
        "sums", "reviews", "nsubj", 9, 15, difference=Interval(0.0, -0.2, 0.2), p=0.9, q=0.9
    )
    return replace(
        profile(),
        relations={"reviews": relations(2), "sums": relations(4)},
        effects=RelationEffects((stands, falls), {}),
    )


def advice(source: str, gain: float, measured: float = nan) -> Advice:
    return Advice(
        source=source,
        gain=Interval(gain, gain - 4, gain + 4),
        popularity=gain / 2,
        harm=0.3,
        best=0.4,
        reasons=(Reason("lengths", "lengths alike +0.8", 0.8),),
        side_effects=(),
        measured=Interval(measured, measured - 2, measured + 2)
        if measured == measured
        else unknown("not measured"),
    )


def recommendation(
    target: str, gains: dict[str, tuple[float, float]], popular: str, **more: object
) -> Recommendation:
    """gains: source -> predicted and measured."""
    ranked = tuple(advice(name, *both) for name, both in sorted(gains.items(), key=lambda one: -one[1][0]))
    known = {name: both[1] for name, both in gains.items()}
    fields = {
        "target": target,
        "new": False,
        "unit": "points",
        "ranked": ranked,
        "set_aside": (SetAside(target, "own", "the target's own training set", unknown("")),),
        "verdict": "inconclusive",
        "headline": "",
        "words": "Cannot tell: the best three are within noise.",
        "smallest": 5.0,
        "popular": (popular,),
        "random": 0.5,
        "measured": {
            "first": known[ranked[0].source],
            "first_of_popularity": known[popular],
            "random": float(np.mean(list(known.values()))),
            "best": max(known.values()),
        },
        "next_probes": (),
        "notes": (),
        "conditions": {"model": "stack", "setting": "", "other_targets": 3},
    }
    return Recommendation(**{**fields, **more})  # type: ignore[arg-type]


def held_out() -> HeldOut:
    return judged(
        (
            recommendation(
                "reviews", {"sums": (1.0, 4.0), "stories": (3.0, 7.25), "riddles": (-1.0, -6.5)}, "sums"
            ),
            recommendation(
                "sums", {"reviews": (2.0, -3.0), "stories": (0.5, 9.0), "riddles": (0.1, 1.0)}, "stories"
            ),
            recommendation(
                "riddles",
                {"reviews": (0.2, 0.4), "sums": (0.1, 0.1), "stories": (0.0, 0.3)},
                "sums",
                unit="bits_per_byte",
            ),
        ),
        {"stories": "too few other targets"},
    )
