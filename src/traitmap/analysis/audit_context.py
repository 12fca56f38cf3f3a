"""Rows of an audit against what is known elsewhere: checkpoints, other instruments, traits of an atlas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

import numpy as np

from traitmap.analysis.audit import AuditRow
from traitmap.analysis.checkpoints import choose_step
from traitmap.analysis.traits.decompose import decompose
from traitmap.errors import MatrixError
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.matrix.statistics import mcnemar
from traitmap.wording import counted, share, signed

_ERROR = 0.05


def checkpoint_to_keep(matrix: TransferMatrix, rows: Sequence[AuditRow], losses: Mapping[str, float]) -> str:
    """Which of several checkpoints to keep and why, in a sentence. rows: in the order of training.

    losses: name -> evaluation loss of the trainer, where it is known. Those that are harmed are left out;
    among the others the lowest loss decides, else the highest mean change on tasks that are shares
    (``checkpoints.choose_step``).
    """
    harmed = {row.name: "is harmed" for row in rows if row.verdict == "harmed"}
    if len(harmed) == len(rows):
        first = min(rows, key=lambda row: len(row.clear("worse")))
        return f"none is without harm; {first.name} has the fewest losses ({len(first.clear('worse'))})"
    asked = rows[0].questions
    targets = [q.name for q in asked if q.kind == "task" and q.unit == "points" and q.name in matrix.targets]
    steps = {row.name: place for place, row in enumerate(rows)}
    return choose_step(matrix, "checkpoints", steps, targets, harmful=harmed, losses=losses).words


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


def instruments_in_words(matrix: TransferMatrix, targets: Sequence[str]) -> str:
    """Whether several instruments move together over all audited rows: their traits, beside noise.

    targets: the instruments, in the matrix. Empty for fewer than three of them or than two rows.
    """
    shown = [target for target in matrix.targets if target in targets]
    if len(shown) < 3 or len(matrix.sources) < 2:
        return ""
    over = f"over {counted(len(matrix.sources), 'row')} the {len(shown)} safety tasks"
    try:
        traits = decompose(matrix.part(matrix.sources, shown), n_bootstrap=0)
    except MatrixError as error:
        return f"{over} cannot be told to move together or apart: {error}"
    first, noise = (share(float(values[0])) for values in (traits.explained_variance_ratio, traits.null_p95))
    size = f"the first component takes {first} of the variance, noise takes up to {noise}"
    used = traits.n_components["used"]
    if not used:
        return f"{over} share no trait beyond noise ({size}), so none of them stands for another"
    order = np.argsort(-np.abs(traits.loadings[:, 0]), kind="stable")
    loads = ", ".join(f"{traits.targets[t]} {signed(float(traits.loadings[t, 0]), 2)}" for t in order[:4])
    return f"{over} share {counted(int(used), 'trait')} ({size}), of which the first loads on {loads}"


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
