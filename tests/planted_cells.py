"""Studies of one target whose adapters do one known thing each, as answers: what verdicts are tried on.

``Form`` says how answers look: ``choices`` have log-probabilities, ``labels`` are written class words, and
``numbers`` are written answers without classes. An adapter is the base with one thing changed (``TRUTHS``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from traitmap.analysis.controls import cell_evidence
from traitmap.analysis.verdicts import Kind, Verdicts, cell_verdicts, cells_to_look_at
from traitmap.data.records import Outcome
from traitmap.matrix.record import Array, Cell, TransferMatrix
from traitmap.matrix.statistics import benjamini_hochberg, paired_gain
from traitmap.study.settings import BASELINE

Form = Literal["choices", "labels", "numbers"]
TRUTHS: Mapping[str, Kind] = {
    "nothing": "within noise",
    "more skill": "clean gain",
    "less skill": "clean loss",
    "shares put right": "class shares",
    "shares put wrong": "class shares",
    "one answer, a gain": "collapse",
    "one answer, a loss": "collapse",
    "items learnt by heart": "overlap",
    "format learnt": "format",
    "format lost": "format",
    "format as its control": "format",
}
LEGAL: Mapping[Form, tuple[str, ...]] = {
    "choices": (*list(TRUTHS)[:8], "format as its control"),
    "labels": tuple(TRUTHS),
    "numbers": ("nothing", "more skill", "less skill", *list(TRUTHS)[7:]),
}
LABELS = ("negative", "neutral", "positive", "mixed", "none of these")


@dataclass(frozen=True)
class Planted:
    """A study of one target ``task``: its matrix, all outcomes, and what is true of each source."""

    matrix: TransferMatrix
    outcomes: Mapping[tuple[str, int | None], tuple[Outcome, ...]]
    touched: Mapping[str, tuple[int, ...]]
    controls: Mapping[str, str]
    truth: Mapping[str, str]

    def verdicts(self) -> Verdicts:
        """By the package, as a run would have them."""
        wanted = cells_to_look_at(self.matrix).get("task", [])
        found = cell_evidence("task", self.outcomes, wanted, touched=self.touched, controls=self.controls)
        return cell_verdicts(self.matrix, {(source, "task"): evidence for source, evidence in found.items()})


def planted(
    truths: Sequence[str],
    *,
    form: Form = "choices",
    items: int = 250,
    shares: Sequence[float] = (1 / 3, 1 / 3, 1 / 3),
    skill: float = 1.2,
    change: float = 1.6,
    lean: float = 0.0,
    shift: float = 4.0,
    unparsed: float = 0.0,
    memorised: float = 0.4,
    seeds: int = 1,
    seed: int = 0,
) -> Planted:
    """One adapter (of ``seeds`` seeds) for each truth.

    shares: of the true classes. skill: of the base, in units of the noise of its logits; change: how much
    more skilled an adapter is; one of less skill has none. lean: how far base and adapters avoid the last
    class; "shares put right" takes it away, "shares put wrong" adds ``shift``. unparsed: share of the base's
    written answers that cannot be parsed. memorised: share of the items that are learnt by heart.
    """
    draw = np.random.default_rng(seed)
    gold = draw.choice(len(shares), items, p=shares)
    learnt = np.arange(int(memorised * items))
    world = _World(draw, form, gold, learnt, skill, change, lean, shift, unparsed)
    base = world.answers("nothing", world.noise)
    outcomes: dict[tuple[str, int | None], tuple[Outcome, ...]] = {(BASELINE, None): world.outcomes(base)}
    touched, controls, truth = {}, {}, {}
    for place, name in enumerate(truths):
        source = f"s{place}"
        truth[source] = name
        touched[source] = tuple(learnt.tolist()) if name == "items learnt by heart" else ()
        for one in range(seeds):
            answers = world.answers(name, world.noise_of_adapter())
            outcomes[source, one] = world.outcomes(answers)
            if name == "format as its control":
                controls[source] = f"{source}_format"
                outcomes[controls[source], one] = world.outcomes(
                    world.answers(name, world.noise_of_adapter())
                )
                touched[controls[source]] = ()
    return Planted(_matrix(outcomes, items), outcomes, touched, controls, truth)


class _World:
    """True answers of all items, the base's logits, and answers of whoever does one thing."""

    def __init__(
        self,
        draw: np.random.Generator,
        form: Form,
        gold: NDArray[np.int64],
        learnt: NDArray[np.int64],
        skill: float,
        change: float,
        lean: float,
        shift: float,
        unparsed: float,
    ) -> None:
        self.draw, self.form, self.gold, self.learnt = draw, form, gold, learnt
        self.skill, self.change, self.shift, self.unparsed = skill, change, shift, unparsed
        self.items, self.classes = len(gold), int(gold.max()) + 1
        self.noise = draw.normal(size=(self.items, self.classes))
        self.lean = np.zeros(self.classes)
        self.lean[-1] = -lean
        self.hard = draw.random(self.items)  # to parse

    def noise_of_adapter(self) -> Array:
        """Mostly the base's: adapters and base err on the same items."""
        return 0.9 * self.noise + np.sqrt(1 - 0.81) * self.draw.normal(size=self.noise.shape)

    def answers(self, name: str, noise: Array) -> tuple[Array, Array]:
        """Logits (n, K), and whether each answer can be parsed (n,)."""
        more = {"more skill": self.change, "less skill": -self.skill, "format as its control": self.change}
        skill = self.skill + more.get(name, 0.0)
        lean = self.lean.copy()
        if name == "shares put right":
            lean[:] = 0
        if name == "shares put wrong":
            lean[-1] -= self.shift
        logits = noise + lean
        logits[np.arange(self.items), self.gold] += skill
        if name.startswith("one answer"):
            counts = np.bincount(self.gold, minlength=self.classes)
            logits[:, counts.argmax() if name.endswith("gain") else counts.argmin()] += 9
        if name == "items learnt by heart":
            logits[self.learnt, self.gold[self.learnt]] += 9
        bad = {"format learnt": 0.0, "format lost": 0.6}.get(name, self.unparsed)
        return logits, self.hard >= bad if self.form != "choices" else np.ones(self.items, dtype=bool)

    def outcomes(self, answers: tuple[Array, Array]) -> tuple[Outcome, ...]:
        logits, parsed = answers
        chosen = logits.argmax(axis=1)
        rows = []
        for item, (gold, answer, legal) in enumerate(
            zip(self.gold.tolist(), chosen.tolist(), parsed.tolist(), strict=True)
        ):
            right = bool(legal and gold == answer)
            texts = [LABELS[gold], LABELS[answer]]
            if self.form == "numbers":  # the truth of each item is its own
                texts = [str(1000 + item), str(1000 + item if gold == answer else item)]
            rows.append(
                Outcome(
                    item=item,
                    item_digest=str(item),
                    score=float(right),
                    correct=right,
                    prediction=texts[1] if legal else "",
                    gold=texts[0],
                    choice_logprobs=tuple(logits[item]) if self.form == "choices" else None,
                    text=None if self.form == "choices" else texts[1],
                    parsed=legal,
                )
            )
        return tuple(rows)


def _matrix(outcomes: Mapping[tuple[str, int | None], Sequence[Outcome]], items: int) -> TransferMatrix:
    """The matrix as ``build_matrix`` would make it: paired gains with q over the pooled cells."""
    scores: dict[str, list[list[float]]] = {}
    for (source, _), rows in outcomes.items():
        scores.setdefault(source, []).append([row.score for row in rows])
    arrays = {source: np.array(rows) for source, rows in scores.items()}
    base = arrays.pop(BASELINE)[0]
    stacked = np.stack([array - base for array in arrays.values()])
    gains, low, high, p = paired_gain(stacked, binary=True)
    q = benjamini_hochberg(p)

    def cell(source: str, value: float, *numbers: float) -> Cell:
        gain, lower, upper, p_value, q_value = numbers
        return Cell(
            source,
            "task",
            None,
            "acc",
            value,
            items,
            nan,
            gain,
            lower,
            upper,
            p_value,
            q_value,
            0.0,
            "measured",
        )

    cells = tuple(
        cell(source, float(array.mean()), *map(float, numbers))
        for (source, array), *numbers in zip(arrays.items(), gains, low, high, p, q, strict=True)
    )
    return TransferMatrix(
        sources=tuple(arrays),
        targets=("task",),
        values=np.array([[one.value] for one in cells]),
        baseline=np.array([base.mean()]),
        cells=cells,
        base_cells=(cell(BASELINE, float(base.mean()), 0.0, nan, nan, nan, nan),),
        item_scores={
            "task": np.stack([np.tile(base, (len(next(iter(arrays.values()))), 1)), *arrays.values()])
        },
    )
