"""Studies of known truth for explanations: tasks with positions, gains with node effects, planted slopes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planted import matrix_of
from traitmap.analysis.explanation.design import two_way_residual
from traitmap.analysis.profiles.pairs import Feature, PairFeatures
from traitmap.matrix.record import Array, TransferMatrix


@dataclass(frozen=True)
class Shape:
    """S sources, T targets; shared: whether they are the same tasks; missing: share of unknown gains."""

    sources: int
    targets: int
    shared: bool = True
    missing: float = 0.0

    def __str__(self) -> str:
        tasks = "same tasks" if self.shared else "other tasks"
        gaps = f", {self.missing:.0%} missing" if self.missing else ""
        return f"{self.sources} x {self.targets}, {tasks}{gaps}"


def names_of(shape: Shape) -> tuple[list[str], list[str]]:
    rows = [f"task{i:02d}" for i in range(shape.sources)]
    first = 0 if shape.shared else shape.sources
    return rows, [f"task{first + j:02d}" for j in range(shape.targets)]


def nearness(shape: Shape, generator: np.random.Generator) -> Array:
    """(S, T) minus the distance between tasks in a plane: as real similarities are, it hangs together."""
    tasks = generator.normal(size=(shape.sources + shape.targets, 2))
    columns = tasks[: shape.targets] if shape.shared else tasks[shape.sources :]
    return -np.linalg.norm(tasks[: shape.sources, None] - columns[None], axis=-1)


def simulated(shape: Shape, effect: float, seed: int, others: int = 0) -> tuple[TransferMatrix, PairFeatures]:
    """Gains with source effects, target effects and effects of pairs that hang together by task, beside a
    feature of the same kind whose correlation with the gains, effects taken out, is ``effect``.

    others: further features that partly copy the first and have no effect of their own.
    """
    generator = np.random.default_rng([seed, 17])
    x = nearness(shape, generator) + 0.5 * generator.normal(size=(shape.sources, 1))
    latent = generator.normal(size=(shape.sources + shape.targets, 2))
    columns = latent[: shape.targets] if shape.shared else latent[shape.sources :]
    rest = 0.5 * latent[: shape.sources] @ generator.normal(size=(2, 2)) @ columns.T
    rest = rest + generator.normal(size=x.shape)
    sources, targets = names_of(shape)
    foreign = np.array([[s != t for t in targets] for s in sources])
    feature, noise = two_way_residual(x, foreign), two_way_residual(rest, foreign)
    gains = effect * feature / feature[foreign].std()
    gains = gains + np.sqrt(1 - effect**2) * noise / noise[foreign].std()
    gains = gains + generator.normal(size=(shape.sources, 1)) + 2 * generator.normal(size=(1, shape.targets))
    gains[generator.random(gains.shape) < shape.missing] = np.nan
    told = [Feature("near", "hidden", "near", x)]
    for number in range(others):
        copied = 0.7 * x + 0.7 * nearness(shape, generator)
        told.append(Feature(f"copy{number}", "surface", "copy", copied))
    return matrix_of(gains, sources, targets), PairFeatures(tuple(sources), tuple(targets), tuple(told))
