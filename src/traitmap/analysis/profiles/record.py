"""All that was found of some datasets, and of a run's answers, in one record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from traitmap.analysis.profiles.cell_profiles import CellProfiles
from traitmap.analysis.profiles.datasets import DatasetComparison
from traitmap.analysis.profiles.datasets_json import to_json
from traitmap.analysis.profiles.rows import DatasetRow, dataset_rows
from traitmap.analysis.profiles.syntax_parser import Relations
from traitmap.analysis.profiles.syntax_records import RelationEffects
from traitmap.analysis.profiles.syntax_shares import relations_json
from traitmap.engine.perplexity import BasePerplexity
from traitmap.matrix_record import TransferMatrix


@dataclass(frozen=True)
class Profile:
    """What the texts of some datasets say, and of a run also what its answers say.

    kind: ``texts``, ``study`` or ``run``. roles: dataset -> ``source``, ``target`` or ``dataset``.
    tasks: dataset -> its name in the study, which a source and a target may have in common.
    comparison: profiles of the datasets, and how alike they are.
    relations: dataset -> dependency relations, where there was a parser. perplexity: dataset -> that of
        the base, where it was loaded.
    matrix, cells: of a run, and what its outcomes show beyond their scores. effects: how gains depend on
        relations, of a run with a parser.
    notes: what a reader must know beyond the comparison's own notes.
    """

    kind: str
    roles: Mapping[str, str]
    tasks: Mapping[str, str]
    comparison: DatasetComparison
    relations: Mapping[str, Relations] = field(default_factory=lambda: MappingProxyType({}))
    perplexity: Mapping[str, BasePerplexity] = field(default_factory=lambda: MappingProxyType({}))
    matrix: TransferMatrix | None = None
    cells: CellProfiles | None = None
    effects: RelationEffects | None = None
    notes: tuple[str, ...] = ()

    def rows(self) -> tuple[DatasetRow, ...]:
        """One flat row a dataset."""
        return dataset_rows(self.comparison, self.roles, self.tasks)

    def all_notes(self) -> tuple[str, ...]:
        """What a reader must know."""
        return (*self.comparison.notes, *self.notes)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON data; unknown numbers are null."""
        told = {"kind": self.kind, "roles": dict(self.roles), **to_json(self.comparison)}
        told["notes"] = list(self.all_notes())
        if self.relations:
            told["syntax"] = {name: relations_json(one) for name, one in self.relations.items()}
        if self.perplexity:
            told["perplexity"] = {name: one.to_json() for name, one in self.perplexity.items()}
        if self.cells is not None:
            told["cells"] = self.cells.to_json()
        if self.effects is not None:
            told["relation_effects"] = self.effects.to_json()
        return told
