"""The profile of a run, of a study's datasets, or of a file of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitmap.api.profile_subjects import Subject, read_subject
from traitmap.progress import Listener, silent

if TYPE_CHECKING:
    from traitmap.analysis.profiles.cell_profiles import CellProfiles
    from traitmap.analysis.profiles.reading import Sampling
    from traitmap.analysis.profiles.record import Profile
    from traitmap.analysis.profiles.syntax_parser import Parser, Relations
    from traitmap.analysis.profiles.syntax_records import RelationEffects
    from traitmap.engine.contract import Engine
    from traitmap.engine.perplexity import BasePerplexity
    from traitmap.matrix_record import TransferMatrix

PARSED = 300  # texts of a source; items of a run's targets are all parsed, since their outcomes are known


def profile(
    place: str | Path,
    *,
    parser: str | Path | None = None,
    encoder: str | Path | None = None,
    style_encoder: str | Path | None = None,
    perplexity: bool = False,
    base: str | None = None,
    sample: int | None = None,
    seed: int = 0,
    listener: Listener = silent,
    engine: Engine | None = None,
) -> Profile:
    """Profile the datasets of a run folder, of a study file, or of a JSONL file of texts.

    parser: a spaCy pipeline, by path or installed name, for dependency relations; with a run also for how
        gains depend on them. encoder, style_encoder: sentence-transformers models of meaning and of style,
        by path or name (``minilm`` is one that a package holds).
    perplexity: that of the base, which is loaded for it. base: a path or hub id in place of the study's.
    sample: at most so many texts of each dataset. engine: one that is loaded already.
    Raises a UserError for what cannot be read or loaded.
    """
    subject = read_subject(Path(place), engine)
    pipeline = _parser(parser)
    embed, style_embed = _encoder(encoder), _encoder(style_encoder)
    if perplexity and engine is None:
        engine = _base(subject, base)
    surprise = _perplexity(engine, subject, sample, seed, listener) if perplexity and engine else {}
    relations = _relations(pipeline, subject, sample, seed, listener) if pipeline else {}
    from traitmap.analysis.profiles.datasets import profile_datasets
    from traitmap.analysis.profiles.record import Profile

    comparison = profile_datasets(
        subject.texts,
        token_counts=engine.token_counts if engine else None,
        embed=embed,
        style_embed=style_embed,
        parser=pipeline.pipeline if pipeline else None,
        perplexity=_known(surprise),
        sizes=subject.sizes,
        sampling=_sampling(sample),
        seed=seed,
    )
    matrix = _matrix(subject)
    return Profile(
        kind=subject.kind,
        roles=subject.roles,
        tasks=subject.tasks,
        comparison=comparison,
        relations=relations,
        perplexity=surprise,
        cells=_cells(subject, engine, seed),
        matrix=matrix,
        effects=_effects(matrix, subject, relations, seed) if matrix is not None and relations else None,
        notes=_notes(subject, engine if perplexity else None),
    )


def write_profile(found: Profile, path: str | Path) -> tuple[Path, ...]:
    """Write one row a dataset as CSV; of a run, cells and relations beside it (``NAME.cells.csv``, ...).

    Returns the files written. Unknown numbers are empty.
    """
    from traitmap.analysis.profiles.rows import cell_rows, relation_rows

    place = Path(path)
    tables = {
        place: [vars(row) for row in found.rows()],
        place.with_suffix(".cells.csv"): cell_rows(found.cells) if found.cells else [],
        place.with_suffix(".relations.csv"): relation_rows(found.effects) if found.effects else [],
    }
    written = []
    for file, rows in tables.items():
        if rows:
            _write_csv(file, rows)
            written.append(file)
    return tuple(written)


def _write_csv(place: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import csv

    from traitmap.errors import UserError

    try:
        with place.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    except OSError as error:
        raise UserError(f"{place} cannot be written: {error.strerror}; give another place") from error


def _cell(value: Any) -> Any:
    """A value as CSV has it: nothing for what is unknown, lists with spaces between."""
    if isinstance(value, float) and not isfinite(value):
        return ""
    return " ".join(value) if isinstance(value, tuple) else value


def _parser(pipeline: str | Path | None) -> Parser | None:
    from traitmap.analysis.profiles.syntax_parser import load_parser

    return None if pipeline is None else load_parser(pipeline)


def _encoder(model: str | Path | None) -> Any:
    from traitmap.analysis.profiles.encoder import load_encoder

    return None if model is None else load_encoder(model)


def _base(subject: Subject, base: str | None) -> Engine:
    """The base that the subject names, or another one."""
    from traitmap.engine import open_engine
    from traitmap.errors import ModelError, UserError
    from traitmap.study.settings import Model

    if base is not None:
        told = {"path": base, "revision": None}  # the study's arithmetic, so that numbers compare
        return open_engine(subject.model.model_copy(update=told) if subject.model else Model(path=base))
    if subject.model is None:
        raise UserError("perplexity needs a base model, and texts name none; give one with --base PATH")
    try:
        return open_engine(subject.model, subject.folder)
    except ModelError as error:
        if subject.kind != "run":
            raise
        raise ModelError(
            f"{error}\nThe run was made from another folder than this one; give its base with --base PATH."
        ) from error


def _perplexity(
    engine: Engine, subject: Subject, sample: int | None, seed: int, listener: Listener
) -> dict[str, BasePerplexity]:
    from traitmap.engine.perplexity import SAMPLE, base_perplexity

    most = SAMPLE if sample is None else sample
    return base_perplexity(engine, subject.texts, sample=most, seed=seed, listener=listener)


def _known(surprise: Mapping[str, BasePerplexity]) -> dict[str, float]:
    """Perplexity of input and output together, as the profiles take it."""
    return {name: one.text.perplexity for name, one in surprise.items() if one.text.texts}


def _relations(
    parser: Parser, subject: Subject, sample: int | None, seed: int, listener: Listener
) -> dict[str, Relations]:
    from traitmap.analysis.profiles.syntax_parser import parse_relations

    inputs = {name: [text.input for text in some] for name, some in subject.texts.items()}
    most = {
        name: None if subject.kind == "run" and subject.roles[name] == "target" else PARSED for name in inputs
    }
    if sample is not None:
        most = dict.fromkeys(inputs, sample)
    return parse_relations(parser, inputs, max_texts=most, seed=seed, listener=listener)


def _sampling(sample: int | None) -> Sampling:
    from traitmap.analysis.profiles.reading import Sampling

    usual = Sampling()
    if sample is None:
        return usual
    return Sampling(**{name: min(sample, most) for name, most in vars(usual).items()})


def _cells(subject: Subject, engine: Engine | None, seed: int) -> CellProfiles | None:
    """What the outcomes of a run show."""
    if subject.store is None:
        return None
    from traitmap.analysis.profiles.cell_profiles import cell_profiles
    from traitmap.api.profile_subjects import outcomes_of_run

    sources, targets = subject.of_role("source"), subject.of_role("target")
    counted = engine.token_counts if engine else None
    return cell_profiles(
        outcomes_of_run(subject.store),
        source_texts=sources,
        target_texts=targets,
        label_counts=subject.label_counts,
        source_tokens={
            name: counted([text.output.strip() for text in some if text.output.strip()])
            for name, some in sources.items()
        }
        if counted
        else None,
        gold_tokens={name: counted([text.output for text in some]) for name, some in targets.items()}
        if counted
        else None,
        seed=seed,
    )


def _matrix(subject: Subject) -> TransferMatrix | None:
    from traitmap.matrix import build_matrix

    return None if subject.store is None else build_matrix(subject.store)


def _effects(
    matrix: TransferMatrix, subject: Subject, relations: Mapping[str, Relations], seed: int
) -> RelationEffects:
    """How gains depend on relations."""
    from traitmap.analysis.profiles.syntax import relation_effects

    datasets = {task: name for task in matrix.targets if (name := subject.named("target", task))}
    classes = {
        task: labels
        for task, name in datasets.items()
        if all(labels := [text.label for text in subject.texts[name]])
    }
    of_target = {task: relations[name] for task, name in datasets.items()}
    return relation_effects(matrix, of_target, classes=classes, seed=seed)


def _notes(subject: Subject, base: Engine | None) -> tuple[str, ...]:
    if base is not None and subject.base_digest and base.base_digest != subject.base_digest:
        return ("perplexity is that of another base, or of other arithmetic, than the run was made with",)
    return ()
