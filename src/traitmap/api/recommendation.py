"""Which source for a target: sources that hold its items are found and set aside, the rest are ranked.

And the judge of such rankings: every recommender on a matrix of which parts are held out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from traitmap import analysis
from traitmap.analysis.explanation.families import without_derived
from traitmap.analysis.recommendation.knowledge import with_drift
from traitmap.analysis.recommendation.prior import align, text_profile
from traitmap.api.atlas import read_priors
from traitmap.api.runs import contamination_in, drift_in, overlap_in_words
from traitmap.api.subject import as_file, folder_of, read_matrix, texts_of, trait_names
from traitmap.data.fingerprints import read_fingerprints
from traitmap.data.texts import (
    read_embeddings,
    read_examples,
    read_groups,
    read_probes,
    read_similarity,
)
from traitmap.errors import DataError, MatrixError
from traitmap.matrix.record import TransferMatrix
from traitmap.progress import Listener, silent
from traitmap.runs.texts import RunTexts
from traitmap.terminal import shows_progress
from traitmap.wording import counted

if TYPE_CHECKING:
    import pandas as pd

    from traitmap.analysis.profiles.semantics import Embed
    from traitmap.api.subject import MatrixLike, TextsLike
    from traitmap.data.texts import TaskText, Texts

MEASURED = "measured"
HOLDOUTS = ("target", "source", "cell")


@shows_progress
def recommend(
    subject: MatrixLike,
    *,
    target: str | None = None,
    examples: Sequence[TaskText] | pd.DataFrame | str | Path | None = None,
    texts: TextsLike | None = None,
    encoder: str | Path | None = None,
    embeddings: Mapping[str, NDArray[np.float64]] | str | Path | None = None,
    similarity: Mapping[str, Mapping[tuple[str, str], float]] | str | Path | None = None,
    adapters: str | Path | None = None,
    prior: Sequence[MatrixLike] = (),
    labels: bool = False,
    probe: Sequence[analysis.Probe] | pd.DataFrame | str | Path | None = None,
    care: Sequence[str] = (),
    top: int | None = None,
    values: Literal["score", "relchange"] = "score",
    seed: int = 0,
    listener: Listener | None = None,
) -> analysis.Recommendation:
    """Rank the sources of a matrix, or the adapters of a run, for one target.

    subject: a run or a table of scores, see ``read_matrix``.
    target: a column, which is hidden from the prediction and told beside it; or else
    examples: of a new target, a handful of texts, or a JSONL file or frame of rows input, output, choices;
        outputs are looked at with ``labels`` only.
    texts: of every task by name, or a JSONL file or frame of them; a run brings its own. Without texts every
        target gets the order that the other targets suggest.
    encoder: of the texts' meaning in place of TF-IDF: a sentence-transformers folder or name, or ``minilm``.
    embeddings: by task, a vector (D,) or several (n, D), or an NPZ file of them.
    similarity: anybody's scores of how alike two tasks are, name -> (source, target) -> number, or a CSV file
        with the columns source, target and one for each measure.
    adapters: a folder with the PEFT directory of each source's LoRA, under its name: their weights tell which
        sources are alike, and how far they go, where there are no texts.
    prior: other people's matrices: runs, tables of scores, atlases or files of one. What they say is used
        as far as it holds on targets that are held out, here and in the priors themselves.
    probe: measured gains of some sources on the target (``Probe`` records, or a CSV file or frame with
        columns source, gain, and stderr or n, in the matrix's own unit), or ``measured``: those of the
        matrix itself.
    care: targets or traits whose change under each source is told; without any the worst measured loss.
    values: predict gains in the score, or relative changes. Sources whose texts hold the target's items are
    set aside. top: only so many sources (default all). seed: of folds, trees and resampling.
    listener: see ``Progress``; None shows progress on a terminal or notebook.

    Raises MatrixError or DataError where something cannot be used.
    """
    whole = read_matrix(subject)
    matrix = without_derived(whole)
    rendered = texts_of(subject, texts) or RunTexts({}, {}, {})
    name, new_texts = _target(matrix, target, examples, labels)
    columns = dict(rendered.targets) | ({name: new_texts} if new_texts is not None else {})
    overlaps, notes = _overlaps(folder_of(subject), rendered, columns, name, listener or silent)
    embed = None if encoder is None else analysis.load_encoder(encoder)
    features, lacking = _features(matrix, rendered, columns, name, embed)
    others = tuple(other for other in matrix.targets if other != name)
    features = with_drift(features, drift_in(folder_of(subject)), matrix.sources, (*others, name))
    priors = read_priors(prior)
    profile = text_profile({**rendered.sources, **columns}) if priors else {}
    traits = None  # needed where the user names something that is no target
    if not set(care) <= set(matrix.targets):
        names = trait_names(matrix)
        traits = analysis.decompose(matrix, names=names, n_bootstrap=200, n_permutations=100)
    ranked = analysis.recommend_sources(
        matrix,
        name,
        features=features,
        similarity=_similarity(similarity),
        embeddings=_embeddings(embeddings),
        weights=None if adapters is None else read_fingerprints(adapters),
        prior=partial(align, priors, profile=profile) if priors else None,
        contaminated={overlap.source: overlap_in_words(overlap) for overlap in overlaps if overlap.material},
        touched={overlap.source: overlap_in_words(overlap) for overlap in overlaps if not overlap.material},
        probes=_probes(matrix, name, probe),
        care=care,
        traits=traits,
        values=values,
        notes=(*notes, *lacking, *_left_out(whole, matrix)),
        seed=seed,
    )
    return ranked if top is None else analysis.with_top(ranked, top)


def _left_out(whole: TransferMatrix, matrix: TransferMatrix) -> list[str]:
    """What of a run is ranked by other commands, in a sentence."""
    count = len(whole.sources) - len(matrix.sources)
    if not count:
        return []
    return [
        f"{counted(count, 'merge or checkpoint', 'merges and checkpoints')} of these sources are not ranked "
        "beside them: see `traitmap mix` and `traitmap checkpoints`"
    ]


def _target(
    matrix: TransferMatrix,
    target: str | None,
    examples: Sequence[TaskText] | pd.DataFrame | str | Path | None,
    labels: bool,
) -> tuple[str, tuple[TaskText, ...] | None]:
    """Name of the target and, where it is new, its examples."""
    if (target is None) == (examples is None):
        raise DataError("give either a target of the matrix or examples of a new one (--target, --examples)")
    if target is not None:
        if target not in matrix.targets:
            raise MatrixError(
                f"the matrix has no target {target!r}; it has {', '.join(matrix.targets)}. For a new one "
                "give examples (--examples FILE.jsonl)"
            )
        return target, None
    assert examples is not None
    name = Path(examples).name.split(".")[0] if isinstance(examples, str | Path) else ""
    name = name or "new target"
    if isinstance(examples, Sequence) and not isinstance(examples, str):
        texts = tuple(examples)
    else:
        with as_file(examples, ".jsonl") as path:
            texts = read_examples(path)
    if not texts:
        raise DataError("no examples are given; a handful of inputs of the new target is needed")
    while name in matrix.targets or name in matrix.sources:
        name = f"{name} (new)"
    return name, texts if labels else tuple(replace(text, output="", label=None) for text in texts)


def _overlaps(
    folder: Path | None, rendered: RunTexts, columns: Texts, name: str, listener: Listener
) -> tuple[list[analysis.ItemOverlap], list[str]]:
    """Sources whose training texts hold the target's items, and what to know about the comparison."""
    recorded = None if folder is None else contamination_in(folder)
    if recorded is not None and name in recorded.targets:
        return [overlap for overlap in recorded.overlaps if overlap.target == name], []
    # the target's own texts are left out where they stand for both its training and its test items
    sources = {
        source: texts for source, texts in rendered.sources.items() if texts is not rendered.targets.get(name)
    }
    if not sources or name not in columns:
        return [], ["Without texts nobody can see whether a source holds the target's items."]
    compared = analysis.find_contamination(sources, {name: columns[name]}, listener)
    fewest = min(len(texts) for texts in sources.values())
    note = (
        f"Looked for {compared.items[name]:,} items of the target in {fewest:,} or more texts of each source."
    )
    return list(compared.overlaps), [note]


def _features(
    matrix: TransferMatrix, rendered: RunTexts, columns: Texts, name: str, embed: Embed | None
) -> tuple[analysis.PairFeatures | None, list[str]]:
    """Features of all pairs that have texts, and what to say where there are none for this target."""
    rows = {source: rendered.sources[source] for source in matrix.sources if rendered.sources.get(source)}
    others = [*(target for target in matrix.targets if target != name), name]
    targets = {target: columns[target] for target in others if columns.get(target)}
    if not rows or len(targets) < 2 or name not in targets:
        return None, [f"No texts of {name!r} are given."] if rows and name not in targets else []
    lacking = [source for source in matrix.sources if source not in rows]
    notes = [f"No texts of {', '.join(lacking[:5])}: nothing is known of what these sources teach."]
    features = analysis.pair_features(rows, targets, sizes=rendered.totals, embed=embed)
    return features, notes if lacking else []


def _similarity(
    given: Mapping[str, Mapping[tuple[str, str], float]] | str | Path | None,
) -> Mapping[str, Mapping[tuple[str, str], float]] | None:
    return read_similarity(given) if isinstance(given, str | Path) else given


def _embeddings(
    given: Mapping[str, NDArray[np.float64]] | str | Path | None,
) -> Mapping[str, NDArray[np.float64]] | None:
    return read_embeddings(given) if isinstance(given, str | Path) else given


def _probes(
    matrix: TransferMatrix, name: str, probe: Sequence[analysis.Probe] | pd.DataFrame | str | Path | None
) -> Sequence[analysis.Probe]:
    if probe is None:
        return ()
    if isinstance(probe, str) and probe == MEASURED:
        return analysis.measured_probes(matrix, name)
    if isinstance(probe, Sequence) and not isinstance(probe, str):
        return probe
    with as_file(probe) as path:
        return [analysis.Probe(*row) for row in read_probes(path)]


@shows_progress
def evaluate_recommenders(
    matrix: MatrixLike,
    *,
    texts: TextsLike | None = None,
    encoder: str | Path | None = None,
    embeddings: Mapping[str, NDArray[np.float64]] | str | Path | None = None,
    similarity: Mapping[str, Mapping[tuple[str, str], float]] | str | Path | None = None,
    adapters: str | Path | None = None,
    prior: Sequence[MatrixLike] = (),
    holdout: pd.DataFrame | str | Path | Mapping[str, str] = "target",
    attributes: Mapping[str, Mapping[str, str]] | None = None,
    values: Literal["score", "relchange"] = "score",
    seed: int = 0,
    listener: Listener | None = None,
) -> analysis.RecommenderEvaluation:
    """Judge every recommender on a matrix by holding parts of it out; see ``evaluate`` for the protocol.

    matrix: a run or a table of scores, see ``read_matrix``. texts: by task, or a JSONL file or frame of rows
        {task, input, output, choices}; those of a run are not taken by themselves.
    encoder, embeddings, similarity, adapters, prior: see ``recommend``. Cells that are held out here stay
        visible in the priors, which are other measurements.
    holdout: ``target``, ``source``, ``cell``, or groups of targets held out together: a mapping, or a CSV
        file or frame with columns target and group (further columns are attributes of the target).
    attributes: name -> task -> value, in which two tasks are alike or not. values: gains in the score, or
        relative changes. listener: see ``Progress``; None shows progress on a terminal or notebook.

    Raises MatrixError or DataError where a file cannot be used or names do not fit.
    """
    if not isinstance(holdout, Mapping) and not (
        isinstance(holdout, str | Path) and str(holdout) in HOLDOUTS
    ):
        with as_file(holdout) as path:
            groups = read_groups(path)
        holdout, attributes = groups.groups, {**groups.attributes, **(attributes or {})}
    if texts is not None and not isinstance(texts, Mapping):
        rendered = texts_of(matrix, texts)
        texts = rendered.targets if rendered is not None else None
    return analysis.evaluate(
        without_derived(read_matrix(matrix)),
        texts=texts,
        encoder=None if encoder is None else analysis.load_encoder(encoder),
        embeddings=_embeddings(embeddings),
        weights=None if adapters is None else read_fingerprints(adapters),
        similarity=_similarity(similarity),
        prior=read_priors(prior),
        attributes=attributes,
        holdout=holdout if isinstance(holdout, Mapping) else str(holdout),
        values=values,
        seed=seed,
        listener=listener or silent,
    )
