"""Why gains are what they are: a run or any table of scores, held against texts or features of all pairs."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from traitmap import analysis
from traitmap.analysis.recommendation.knowledge import with_drift
from traitmap.api.profiles import PARSED, outcomes_of_run
from traitmap.api.runs import drift_in
from traitmap.api.subject import as_file, folder_of, read_matrix, texts_of
from traitmap.errors import DataError, MatrixError
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.progress import Listener, silent
from traitmap.runs.store import open_store
from traitmap.runs.texts import RunTexts, read_run_texts
from traitmap.terminal import shows_progress

if TYPE_CHECKING:
    import pandas as pd

    from traitmap.api.subject import MatrixLike, TextsLike


@shows_progress
def explain(
    subject: MatrixLike,
    *,
    features: analysis.PairFeatures | None = None,
    texts: TextsLike | None = None,
    parser: str | Path | None = None,
    perplexity: Mapping[str, float] | pd.DataFrame | str | Path | None = None,
    own: Collection[tuple[str, str]] = (),
    composites: Sequence[analysis.Composite] | None = None,
    units: analysis.Units | None = None,
    noise: Array | None = None,
    reasons: analysis.Reasons | None = None,
    answered: Sequence[analysis.AnsweredCurve] | None = None,
    near_copies: bool = False,
    n_permutations: int = 2000,
    seed: int = 0,
    listener: Listener | None = None,
) -> analysis.Explanation:
    """Hold gains against what is known of every (source, target) before training.

    subject: a run or a table of scores, see ``read_matrix``. A run brings its own texts and outcomes.
    features: of all pairs; or texts: of every task by name, or a JSONL file or frame of them. parser: a spaCy
        pipeline, for distances of syntax too. perplexity: of the base on the texts of each source (1 or
        more), or a CSV file or frame of it (columns dataset, perplexity), as ``write_profile`` writes it.
    own: further pairs, beside those of one name, whose source is the target's own training set; they are
        left out of everything. composites: what the joint regression holds beside each other.
    units: ``points``, or ``standard`` to divide each target's gains by their standard deviation, so that its
        unit does not matter; by default points where the metrics of all targets are known and shares.
    noise: (S, T) standard errors of the gains, by default from the matrix's cells.
    reasons: further reasons for single pairs; answered: what variations do to the answers. Both come from
        the outcomes of a run where they are left out. near_copies: let all of several sources take part whose
        rows agree beyond noise, of which otherwise one stands for all. n_permutations: of tasks, 99 or more.
    seed: of everything random. listener: see ``Progress``; None shows progress on a terminal or notebook.

    Raises MatrixError where there are no texts, or too little fits; DataError for a file of perplexity.
    """
    listener = listener or silent
    matrix = read_matrix(subject)
    if features is None and len(analysis.without_variations(matrix).sources) < 3:
        features = analysis.PairFeatures(matrix.sources, matrix.targets, ())  # no pairs: families alone
    if features is None:
        pipeline = None if parser is None else analysis.load_parser(parser)  # before what takes time
        known = _perplexity(perplexity, matrix.sources)
        rendered = texts_of(subject, texts)
        if rendered is None:
            raise MatrixError(
                "a matrix alone does not say why: give the texts of its tasks (--texts FILE.jsonl, rows of "
                "task, input, output, choices), or features of all pairs from Python"
            )
        features = analysis.features_from_texts(
            matrix,
            rendered.sources,
            target_texts=rendered.targets,
            sizes=rendered.totals if texts is None else None,
            perplexity=known,
        )
        if pipeline is not None:
            features = _with_syntax(features, rendered, pipeline, listener, seed=seed)
        features = with_drift(features, drift_in(folder_of(subject)), features.sources, features.targets)
    if (folder := folder_of(subject)) is not None and (reasons is None or answered is None):
        curves, outcome_reasons = outcome_findings(folder, matrix, reasons=reasons is None)
        answered = curves if answered is None else answered
        reasons = outcome_reasons if reasons is None else reasons
    return analysis.explain(
        matrix,
        features=features,
        own=own,
        composites=composites,
        units=units,
        noise=noise,
        reasons=reasons,
        answered=answered or (),
        near_copies=near_copies,
        n_permutations=n_permutations,
        seed=seed,
    )


def outcome_findings(
    folder: str | Path, matrix: TransferMatrix, *, reasons: bool = True
) -> tuple[tuple[analysis.AnsweredCurve, ...], analysis.Reasons]:
    """What a run says of its pairs: answers over the doses of its variations, and reasons.

    Reasons are of sources with the texts of others and other answers, and out of the outcomes of cells;
    reasons: False leaves the latter out, for whoever has them from a profile.
    """
    store = open_store(folder)
    rendered, outcomes = read_run_texts(store), outcomes_of_run(store)
    curves: list[analysis.AnsweredCurve] = []
    for (_, _, meaning), by_dose in analysis.doses_of(matrix).items():
        doses = {source: dose for dose, source in by_dose.items()}
        curves += analysis.answered_curves(
            outcomes, doses, dose=meaning, texts=rendered.targets, item_groups=matrix.item_groups
        )
    changed = analysis.relabelled(matrix, rendered.sources)
    if not reasons:
        return tuple(curves), changed
    cells = analysis.cell_profiles(
        outcomes,
        source_texts=rendered.sources,
        target_texts=rendered.targets,
        item_groups=matrix.item_groups,
    )
    return tuple(curves), analysis.merged(changed, cells.reasons)


def _perplexity(
    table: Mapping[str, float] | pd.DataFrame | str | Path | None, sources: Sequence[str]
) -> Mapping[str, float]:
    """Perplexity by source; of a file's rows those that are known and belong to a source."""
    if table is None or isinstance(table, Mapping):
        return table or {}
    with as_file(table) as path:
        try:
            with path.open(encoding="utf-8", newline="") as stream:
                rows = [row for row in csv.DictReader(stream) if row.get("perplexity") and row.get("dataset")]
            known = {row["dataset"]: float(row["perplexity"]) for row in rows if row.get("role") != "target"}
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as a CSV file of perplexity: {error}") from error
    wrong = [f"{name} {value:g}" for name, value in known.items() if not 1 <= value < inf]
    if wrong or not known.keys() & set(sources):
        raise DataError(
            f"{path} has no usable perplexity of sources ({', '.join(wrong) or 'no row fits one'}); "
            "give columns dataset and perplexity (1 or more), as `traitmap profile RUN --perplexity --csv "
            "FILE.csv` writes them"
        )
    return known


def _with_syntax(
    features: analysis.PairFeatures,
    rendered: RunTexts,
    parser: analysis.Parser,
    listener: Listener,
    *,
    seed: int,
) -> analysis.PairFeatures:
    """The features and one more: the distance of the inputs' dependency relations."""
    sides = {"source": (features.sources, rendered.sources), "target": (features.targets, rendered.targets)}
    parsed = analysis.parse_relations(
        parser,
        {
            f"{side} {name}": [text.input for text in texts[name]]
            for side, (names, texts) in sides.items()
            for name in names
        },
        max_texts=PARSED,
        seed=seed,
        listener=listener,
    )
    distance = analysis.syntax_feature(
        {name: parsed[f"source {name}"] for name in features.sources},
        {name: parsed[f"target {name}"] for name in features.targets},
    )
    return replace(features, features=(*features.features, distance))
