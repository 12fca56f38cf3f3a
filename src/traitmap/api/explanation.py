"""Why gains are what they are: a run or anybody's matrix, held against texts or given features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitmap.api.runs import Run, matrix_of
from traitmap.errors import DataError, MatrixError
from traitmap.progress import Listener, silent

if TYPE_CHECKING:
    from traitmap.analysis.explanation.families import AnsweredCurve
    from traitmap.analysis.explanation.records import Explanation
    from traitmap.analysis.features import PairFeatures
    from traitmap.analysis.profiles.parser import Parser
    from traitmap.data.texts import Texts
    from traitmap.matrix.record import TransferMatrix

PARSED = 300  # texts of a dataset that a parser reads: shares of relations are steady by then


@dataclass(frozen=True)
class _Sides:
    """Texts of sources and of targets, which may differ under one name, and sizes of whole sources."""

    sources: Texts
    targets: Texts
    sizes: Mapping[str, int] | None = None


def explain(
    subject: TransferMatrix | Run | str | Path,
    *,
    features: PairFeatures | None = None,
    texts: Texts | str | Path | None = None,
    parser: str | Path | None = None,
    perplexity: Mapping[str, float] | str | Path | None = None,
    listener: Listener = silent,
    **settings: Any,
) -> Explanation:
    """Hold gains against what is known of every (source, target) before training.

    subject: a matrix, a run or its folder, or a CSV or Parquet matrix. A run brings its own texts.
    features: of all pairs; or texts: of every task by name, or a JSONL file of them. parser: a spaCy
        pipeline, for distances of syntax too. perplexity: of the base on the texts of each source, or a CSV
        file of it (columns dataset, perplexity), as ``write_profile`` writes it.
    settings: as for ``traitmap.analysis.explanation.explain``.

    Raises MatrixError where there are no texts, or too little fits; DataError for a file of perplexity.
    """
    from traitmap.analysis.explanation.explain import explain as explain_matrix
    from traitmap.analysis.explanation.families import without_variations
    from traitmap.analysis.features import PairFeatures

    matrix = _matrix(subject)
    if features is None and len(without_variations(matrix).sources) < 3:
        features = PairFeatures(matrix.sources, matrix.targets, ())  # no pairs to compare: families alone
    if features is None:
        loaded = None if parser is None else _parser(parser)  # before what takes time
        known = _perplexity(perplexity, matrix.sources)
        sides = _texts(subject, texts)
        features = _features(matrix, sides, loaded, known, listener, seed=settings.get("seed", 0))
    if (folder := _run_folder(subject)) is not None:
        settings = {**outcome_findings(folder, matrix, reasons="reasons" not in settings), **settings}
    return explain_matrix(matrix, features=features, **settings)


def _matrix(subject: TransferMatrix | Run | str | Path) -> TransferMatrix:
    if isinstance(subject, Run):
        return subject.matrix()
    return matrix_of(subject) if isinstance(subject, str | Path) else subject


def _run_folder(subject: TransferMatrix | Run | str | Path) -> Path | None:
    """The folder of a run, where the subject is one."""
    if isinstance(subject, Run):
        return subject.folder
    return Path(subject) if isinstance(subject, str | Path) and Path(subject).is_dir() else None


def outcome_findings(folder: Path, matrix: TransferMatrix, *, reasons: bool = True) -> dict[str, Any]:
    """What the outcomes of a run say: reasons of its cells, and answers over the doses of its variations.

    reasons: False leaves these out, for who has them from a profile.
    """
    from traitmap.analysis.explanation.families import answered_curves, doses_of
    from traitmap.analysis.profiles.cells import cell_profiles
    from traitmap.api.profiles import outcomes_of_run
    from traitmap.runs.store import open_store
    from traitmap.runs.texts import read_run_texts

    store = open_store(folder)
    kept, outcomes = read_run_texts(store), outcomes_of_run(store)
    answered: list[AnsweredCurve] = []
    for one in doses_of(matrix):
        doses = {source: dose for dose, source in one.sources.items()}
        answered += answered_curves(outcomes, doses, dose=one.meaning, texts=kept.targets)
    if not reasons:
        return {"answered": tuple(answered)}
    found = cell_profiles(outcomes, source_texts=kept.sources, target_texts=kept.targets)
    return {"reasons": found.reasons, "answered": tuple(answered)}


def _texts(subject: TransferMatrix | Run | str | Path, texts: Texts | str | Path | None) -> _Sides:
    """Texts as they are given, else those of the run."""
    if isinstance(texts, str | Path):
        from traitmap.data.texts import read_texts

        read = read_texts(texts)
        return _Sides(read, read)
    if texts is not None:
        return _Sides(texts, texts)
    folder = _run_folder(subject)
    if folder is None:
        raise MatrixError(
            "a matrix alone does not say why: give the texts of its tasks (--texts FILE.jsonl, rows of task, "
            "input, output, choices), or features of all pairs from Python"
        )
    from traitmap.runs.store import open_store
    from traitmap.runs.texts import read_run_texts

    kept = read_run_texts(open_store(folder))
    return _Sides(kept.sources, kept.targets, kept.totals)


def _parser(pipeline: str | Path) -> Parser:
    from traitmap.analysis.profiles.parser import load_parser

    return load_parser(pipeline)


def _perplexity(
    given: Mapping[str, float] | str | Path | None, sources: Sequence[str]
) -> Mapping[str, float]:
    """Perplexity by source; of a file's rows those that are known and belong to a source."""
    if given is None or isinstance(given, Mapping):
        return given or {}
    import csv

    try:
        with Path(given).open(encoding="utf-8", newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row.get("perplexity") and row.get("dataset")]
        found = {row["dataset"]: float(row["perplexity"]) for row in rows if row.get("role") != "target"}
    except (OSError, ValueError) as error:
        raise DataError(f"{given} cannot be read as a CSV file of perplexity: {error}") from error
    wrong = [f"{name} {value:g}" for name, value in found.items() if not 1 <= value < inf]
    if wrong or not found.keys() & set(sources):
        raise DataError(
            f"{given} has no usable perplexity of sources ({', '.join(wrong) or 'no row fits one'}); "
            "give columns dataset and perplexity (1 or more), as `traitmap profile RUN --perplexity --csv "
            "FILE.csv` writes them"
        )
    return found


def _features(
    matrix: TransferMatrix,
    sides: _Sides,
    parser: Parser | None,
    perplexity: Mapping[str, float],
    listener: Listener,
    *,
    seed: int,
) -> PairFeatures:
    from traitmap.analysis.explanation.explain import features_from_texts

    sizes = {} if sides.sizes is None else {"sizes": sides.sizes}
    found = features_from_texts(
        matrix, sides.sources, target_texts=sides.targets, perplexity=perplexity, **sizes
    )
    if parser is None:
        return found
    from traitmap.analysis.profiles.parser import parse_relations, syntax_feature

    inputs = {("source", name): [one.input for one in sides.sources[name]] for name in found.sources}
    inputs |= {("target", name): [one.input for one in sides.targets[name]] for name in found.targets}
    keys = {f"{side} {name}": (side, name) for side, name in inputs}
    parsed = parse_relations(
        parser,
        {key: inputs[pair] for key, pair in keys.items()},
        max_texts=PARSED,
        seed=seed,
        listener=listener,
    )
    feature = syntax_feature(
        {name: parsed[f"source {name}"] for name in found.sources},
        {name: parsed[f"target {name}"] for name in found.targets},
    )
    return replace(found, features=(*found.features, feature))
