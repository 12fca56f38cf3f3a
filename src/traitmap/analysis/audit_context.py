"""Rows of an audit against what is known elsewhere: checkpoints, other instruments, traits of an atlas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

import numpy as np

from traitmap.analysis.audit import AuditRow
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import mcnemar
from traitmap.wording import counted, signed

_ERROR = 0.05


def checkpoint_to_keep(rows: Sequence[AuditRow], losses: Mapping[str, float]) -> str:
    """Which of several checkpoints to keep and why, in a sentence. rows: in the order of training.

    losses: name -> evaluation loss of the trainer, where it is known. Those that are not harmed come first;
    among them the lowest loss decides, else the highest mean change on tasks that are shares.
    """
    sound = [row for row in rows if row.verdict != "harmed"]
    if not sound:
        losses_of = {row.name: len(row.clear("worse")) for row in rows}
        fewest = min(losses_of.values())
        names = [name for name, count in losses_of.items() if count == fewest]
        if len(names) == len(rows):
            return f"none is without harm, each has {counted(fewest, 'clear loss', 'clear losses')}"
        return f"none is without harm; fewest clear losses ({fewest}): {', '.join(names)}"
    known = [row for row in sound if row.name in losses]
    others = ", ".join(row.name for row in rows if row not in sound)
    harmed = f"; harmed: {others}" if others else ""
    if known:
        best = min(known, key=lambda row: losses[row.name])
        return (
            f"keep {best.name}: the lowest evaluation loss ({losses[best.name]:.4g}) without a harm{harmed}"
        )

    def mean(row: AuditRow) -> float:
        values = [q.improvement for q in row.questions if q.kind == "task" and q.unit == "points"]
        return float(np.mean([value for value in values if isfinite(value)] or [-np.inf]))

    best = max(sound, key=mean)
    return f"keep {best.name}: the best mean change ({signed(mean(best))} points) without a harm{harmed}"


def agreement_in_words(row: AuditRow, areas: Mapping[str, str]) -> tuple[str, ...]:
    """Whether several instruments of one pack say the same of a row. areas: target -> its area.

    A sign test over all of them: instruments that measure unlike things need not agree.
    """
    asked = [q for q in row.questions if q.name in areas and q.change.known and q.improvement != 0]
    if len(asked) < 3:
        return ()
    better = sum(question.improvement > 0 for question in asked)
    p = float(mcnemar(np.array([better]), np.array([len(asked) - better]))[0])
    clear = [q for q in asked if q.called in ("better", "worse")]
    sides = {q.called for q in clear}
    told = (
        f"{better} of {len(asked)} instruments point to better, {len(asked) - better} to worse (p = {p:.2g} "
        "if each fell by chance)"
    )
    if len(sides) == 2:
        split = ", ".join(f"{q.name} {q.called}" for q in clear)
        return (f"{told}; the clear ones contradict each other: {split}",)
    return (f"{told}; {len(clear)} of them clearly",)


def moved_along(
    row: AuditRow, targets: Sequence[str], loadings: Array, names: Sequence[str], *, draws: int = 999
) -> tuple[str, ...]:
    """Along which known trait a row moved, in a sentence.

    targets: (T,) of the atlas' matrix; loadings: (T, C) of its traits, unit columns. The cosine of the row's
    changes (points, over the targets that both have) and a trait's loadings is held against changes whose
    targets change places, the largest of all traits each time. Empty where fewer than 4 targets are shared.
    """
    changes = {q.name: q.improvement for q in row.questions if q.kind == "task" and isfinite(q.improvement)}
    shared = [at for at, name in enumerate(targets) if name in changes]
    if len(shared) < 4 or not loadings.shape[1]:
        return ()
    moved = np.array([changes[targets[at]] for at in shared])
    part = loadings[shared] / np.maximum(np.linalg.norm(loadings[shared], axis=0), 1e-12)
    length = float(np.linalg.norm(moved))
    if length == 0:
        return ("it moved on no target that the atlas has",)
    cosines = moved @ part / length
    generator = np.random.default_rng(0)
    null = [float(np.abs(generator.permutation(moved) @ part).max()) / length for _ in range(draws)]
    best = int(np.abs(cosines).argmax())
    p = (1 + sum(value >= abs(cosines[best]) for value in null)) / (1 + draws)
    way = "up" if cosines[best] > 0 else "down"
    cosine = signed(float(cosines[best]), 2)
    told = f"{names[best]} {way}: cosine {cosine} over {len(shared)} targets, p = {p:.2g}"
    return (told if p < _ERROR else f"none beyond chance (nearest: {told})",)
