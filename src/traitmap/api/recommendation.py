"""Which source for this target: what is given, read; sources that hold its items, found; the rest, ranked.

Which source for a target: recommenders judged on any matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from traitmap.api.runs import Run, matrix_of
from traitmap.errors import DataError
from traitmap.progress import Listener, silent

if TYPE_CHECKING:
    from traitmap.analysis.contamination import Contamination, ItemOverlap
    from traitmap.analysis.features import PairFeatures
    from traitmap.analysis.recommendation.records import Recommendation
    from traitmap.analysis.recommendation.recommend import Probe
    from traitmap.analysis.recommendation.protocol import RecommenderEvaluation
    from traitmap.analysis.traits.records import Traits
    from traitmap.data.texts import TaskText, Texts
    from traitmap.matrix.record import TransferMatrix


MEASURED = "measured"


def recommend(
    subject: TransferMatrix | Run | str | Path,
    *,
    target: str | None = None,
    examples: Sequence[TaskText] | str | Path | None = None,
    texts: Texts | str | Path | None = None,
    labels: bool = False,
    probe: Sequence[Probe] | str | Path | None = None,
    care: Sequence[str] = (),
    top: int | None = None,
    values: Literal["score", "relchange"] = "score",
    seed: int = 0,
) -> Recommendation:
    """Rank the sources of a matrix, or the adapters of a run, for one target.

    subject: a matrix, a run or its folder, or a CSV or Parquet matrix.
    target: a column, which is hidden from the prediction and told beside it; or else
    examples: of a new target, a handful of texts, or a JSONL file of rows input, output, choices; outputs
        are looked at with ``labels`` only.
    texts: of every task by name, or a JSONL file of them; a run brings its own. Without texts every
        target gets the order that the other targets suggest.
    probe: measured gains of some sources on the target (``Probe`` records, or a CSV with columns source,
        gain, and stderr or n, in the matrix's own unit), or ``measured``: those of the matrix itself.
    care: targets or traits whose change under each source is told; without any the worst measured loss.
    Sources whose texts hold the target's items are set aside. top: only so many sources (default all).
    Raises MatrixError or DataError where something cannot be used.
    """
    from traitmap.analysis.recommendation.recommend import recommend_sources, with_top

    matrix = _matrix(subject)
    sides = _sides(subject, texts)
    name, asked = _target(matrix, target, examples, labels)
    columns = dict(sides.targets) | ({name: asked} if asked is not None else {})
    overlaps, notes = _overlaps(subject, sides, columns, name)
    features, told = _features(matrix, sides, columns, name)
    found = recommend_sources(
        matrix,
        name,
        features=features,
        contaminated={overlap.source: _words(overlap) for overlap in overlaps if overlap.material},
        touched={one.source: _words(one) for one in overlaps if not one.material},
        probes=_probes(matrix, name, probe),
        care=care,
        traits=_traits(matrix, care),
        values=values,
        notes=(*notes, *told),
        seed=seed,
    )
    return found if top is None else with_top(found, top)


@dataclass(frozen=True)
class _Sides:
    """Texts of sources and of targets, and how many examples each whole source has, where that is known."""

    sources: Texts
    targets: Texts
    sizes: Mapping[str, int]


def _matrix(subject: TransferMatrix | Run | str | Path) -> TransferMatrix:
    if isinstance(subject, Run):
        return subject.matrix()
    return matrix_of(subject) if isinstance(subject, str | Path) else subject


def _sides(subject: TransferMatrix | Run | str | Path, texts: Texts | str | Path | None) -> _Sides:
    """Texts as they are given, else those of the run, else none."""
    from traitmap.data.texts import read_texts

    if texts is not None:
        read = read_texts(texts) if isinstance(texts, str | Path) else texts
        return _Sides(read, read, {})
    folder = subject.folder if isinstance(subject, Run) else subject
    if not isinstance(folder, str | Path) or not Path(folder).is_dir():
        return _Sides({}, {}, {})
    from traitmap.runs.store import open_store
    from traitmap.runs.texts import read_run_texts

    kept = read_run_texts(open_store(folder))
    return _Sides(kept.sources, kept.targets, kept.totals)


def _target(
    matrix: TransferMatrix,
    target: str | None,
    examples: Sequence[TaskText] | str | Path | None,
    labels: bool,
) -> tuple[str, tuple[TaskText, ...] | None]:
    """Name of the target and, where it is new, its examples."""
    from traitmap.errors import MatrixError

    if (target is None) == (examples is None):
        raise DataError("give either a target of the matrix or examples of a new one (--target, --examples)")
    if target is not None:
        if target not in matrix.targets:
            raise MatrixError(
                f"the matrix has no target {target!r}; it has {', '.join(matrix.targets)}. For a new one "
                "give examples (--examples FILE.jsonl)"
            )
        return target, None
    name, read = "new target", examples
    if isinstance(examples, str | Path):
        from traitmap.data.texts import read_examples

        name, read = Path(examples).name.split(".")[0] or name, read_examples(examples)
    assert read is not None
    assert not isinstance(read, str | Path)
    if not read:
        raise DataError("no examples are given; a handful of inputs of the new target is needed")
    while name in matrix.targets or name in matrix.sources:
        name = f"{name} (new)"
    return name, tuple(read if labels else (replace(one, output="", label=None) for one in read))


def _overlaps(
    subject: TransferMatrix | Run | str | Path, sides: _Sides, columns: Texts, name: str
) -> tuple[list[ItemOverlap], list[str]]:
    """Sources whose training texts hold the target's items, and what to know about the comparison."""
    from traitmap.analysis.contamination import find_contamination

    kept = _kept(subject)
    if kept is not None and name in kept.targets:
        return [overlap for overlap in kept.overlaps if overlap.target == name], []
    # the target's own texts are left out where they stand for both its training and its test items
    sources = {
        source: texts for source, texts in sides.sources.items() if texts is not sides.targets.get(name)
    }
    if not sources or name not in columns:
        return [], ["Without texts nobody can see whether a source holds the target's items."]
    found = find_contamination(sources, {name: columns[name]})
    fewest = min(len(texts) for texts in sources.values())
    note = f"Looked for {found.items[name]:,} items of the target in {fewest:,} or more texts of each source."
    return list(found.overlaps), [note]


def _kept(subject: TransferMatrix | Run | str | Path) -> Contamination | None:
    from traitmap.api.runs import contamination_in

    folder = subject.folder if isinstance(subject, Run) else subject
    if isinstance(folder, str | Path) and Path(folder).is_dir():
        return contamination_in(folder)
    return None


def _features(
    matrix: TransferMatrix, sides: _Sides, columns: Texts, name: str
) -> tuple[PairFeatures | None, list[str]]:
    """Features of all pairs that have texts, and what to say where there are none for this target."""
    from traitmap.analysis.profiles.pairs import pair_features

    rows = {source: sides.sources[source] for source in matrix.sources if sides.sources.get(source)}
    there = [*(t for t in matrix.targets if t != name), name]
    targets = {target: columns[target] for target in there if columns.get(target)}
    if not rows or len(targets) < 2 or name not in targets:
        missing = f"No texts of {name!r} are given." if rows and name not in targets else ""
        return None, [missing] if missing else []
    lacking = [source for source in matrix.sources if source not in rows]
    notes = [f"No texts of {', '.join(lacking[:5])}: nothing is known of what these sources teach."]
    return pair_features(rows, targets, sizes=sides.sizes), notes if lacking else []


def _probes(matrix: TransferMatrix, name: str, probe: Sequence[Probe] | str | Path | None) -> Sequence[Probe]:
    from traitmap.analysis.recommendation.recommend import measured_probes

    if probe is None:
        return ()
    if probe == MEASURED:
        return measured_probes(matrix, name)
    if isinstance(probe, str | Path):
        from traitmap.analysis.recommendation.recommend import Probe
        from traitmap.data.side_files import read_probes

        return [Probe(*row) for row in read_probes(probe)]
    return probe


def _traits(matrix: TransferMatrix, care: Sequence[str]) -> Traits | None:
    """Traits of the matrix, where the user names something that is no target."""
    if all(name in matrix.targets for name in care):
        return None
    from traitmap.analysis.traits.decompose import decompose
    from traitmap.api.runs import trait_names

    return decompose(matrix, names=trait_names(matrix), n_bootstrap=200, n_permutations=100)


def _words(one: ItemOverlap) -> str:
    return f"its training texts hold {len(one.touched):,} of {one.items:,} items of the target"


HOLDOUTS = ("target", "source", "cell")


def evaluate_recommenders(
    matrix: TransferMatrix | str | Path,
    *,
    texts: str | Path | Mapping[str, Any] | None = None,
    embeddings: str | Path | Mapping[str, Any] | None = None,
    holdout: str | Path | Mapping[str, str] = "target",
    attributes: Mapping[str, Mapping[str, str]] | None = None,
    values: Literal["score", "relchange"] = "score",
    seed: int = 0,
    listener: Listener = silent,
) -> RecommenderEvaluation:
    """Judge every recommender on a matrix by holding parts of it out; see ``evaluate`` for the protocol.

    matrix: a record, a run folder, or a CSV or Parquet file. texts: by task, or a JSONL file of rows
    {task, input, output, choices}. embeddings: by task, or an NPZ file of them.
    holdout: ``target``, ``source``, ``cell``, or groups of targets held out together: a mapping, or a CSV
    file with columns target and group (further columns are attributes of the target).
    Raises MatrixError or DataError where a file cannot be used or names do not fit.
    """
    from traitmap.analysis.recommendation.protocol import evaluate
    from traitmap.data.side_files import read_embeddings, read_groups
    from traitmap.data.texts import read_texts

    if isinstance(holdout, str | Path) and str(holdout) not in HOLDOUTS:
        groups = read_groups(holdout)
        holdout, attributes = groups.groups, {**groups.attributes, **(attributes or {})}
    return evaluate(
        matrix_of(matrix) if isinstance(matrix, str | Path) else matrix,
        texts=read_texts(texts) if isinstance(texts, str | Path) else texts,
        embeddings=read_embeddings(embeddings) if isinstance(embeddings, str | Path) else embeddings,
        attributes=attributes,
        holdout=str(holdout) if isinstance(holdout, Path) else holdout,
        values=values,
        seed=seed,
        listener=listener,
    )
