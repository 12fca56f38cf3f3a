"""A run folder, finished or not: what can be asked of it, and what is kept in it beside the results.

``Run`` answers with the same words as the commands; each method is one call of the function of that name.
Below it stand the two things that a run keeps for later questions: the cells that a run on a budget
predicted, and what its training texts hold of its targets' items.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from traitmap import analysis, api
from traitmap import matrix as matrices
from traitmap.data.texts import questions_of_targets, texts_of_sources
from traitmap.errors import RunError
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.progress import Listener, silent
from traitmap.runs.files import read_sealed_json
from traitmap.runs.ledger import (
    contamination_key,
    read_contamination,
    read_item_groups,
    read_parts,
    write_contamination,
    write_item_groups,
)
from traitmap.runs.status import RunStatus, Waste, find_waste, remove_waste, run_status
from traitmap.runs.store import locked_store, open_store
from traitmap.study.paths import digest

if TYPE_CHECKING:
    import pandas as pd

    from traitmap.api.subject import MatrixLike, TextsLike
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget
    from traitmap.data.texts import TaskText
    from traitmap.engine.contract import Engine
    from traitmap.runs.drift import AdapterDrift
    from traitmap.runs.query import Answered


@dataclass(frozen=True)
class Run:
    """A run folder, finished or not; ``open_run`` gives one, and so does ``run``.

    folder: where it lies. Every method reads the folder anew, so that a run in progress can be asked.
    """

    folder: Path

    def status(self, *, verify: bool = False) -> RunStatus:
        """What is done, failed and missing.

        verify: hold every file against its checksum too. RunError where the ledger cannot be read.
        """
        return run_status(self.folder, verify=verify)

    def matrix(self, *, predicted: bool = False) -> TransferMatrix:
        """The transfer matrix (sources x targets) of what has been measured so far.

        predicted: also the cells that a run on a budget predicted, marked by their status.
        """
        measured = matrices.build_matrix(self.folder)
        return with_predictions(measured, self.folder) if predicted else measured

    def spent(self) -> Mapping[str, Any] | None:
        """What the last run on a budget spent, with the fields of ``Spent``; None where there was none.

        RunError where the record is damaged.
        """
        path = self.folder / "budget.json"
        try:
            return read_sealed_json(path)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise RunError(f"{path}: damaged ({error}); run with --budget again.") from None

    def asked(self) -> Mapping[str, Any]:
        """What was asked where cells may end early, with the fields of ``Asked``; empty for any other run.

        RunError where the record is damaged.
        """
        return read_parts(open_store(self.folder)).asking

    def drift(self) -> pd.DataFrame:
        """How far each adapter has moved from the base, where the study has ``drift``: a row an adapter.

        Columns: source, seed; forgetting, what neutral text costs the adapter beyond the base; kl, its mean
        KL from the base there; own_kl, on prompts of its own source; each with ``_low`` and ``_high``, its
        95 % interval over texts. All in nats per token, 0 at the base. Empty where nothing was measured.
        """
        import pandas as pd

        columns = [f"{name}{end}" for name in ("forgetting", "kl", "own_kl") for end in ("", "_low", "_high")]
        rows = [
            (row.source, row.seed, *row.neutral.forgetting, *row.neutral.divergence)
            + ((nan,) * 3 if row.own is None else row.own.divergence)
            for row in drift_in(self.folder)
        ]
        return pd.DataFrame(rows, columns=["source", "seed", *columns])

    def conditions(self) -> Mapping[str, Any]:
        """How the results came about: the study as it was run, the base, versions, device and digests.

        The same mapping stands on the matrix, ``matrix().conditions``.
        """
        return self.matrix().conditions

    def answer(
        self,
        *,
        target: str | None = None,
        texts: TextsLike | None = None,
        why: bool = True,
        date: str | None = None,
        seed: int = 0,
        listener: Listener | None = None,
    ) -> analysis.Answer:
        """What to pick, avoid and trust, why, and what is uncertain; settings as for ``traitmap.answer``.

        MatrixError for a target that the run does not have.
        """
        return api.answer(self, target=target, texts=texts, why=why, date=date, seed=seed, listener=listener)

    def traits(
        self,
        *,
        scale: analysis.Scale = "standard",
        components: int | Literal["auto"] = "auto",
        rotate: analysis.Rotation = "none",
        mask_diagonal: bool | Literal["auto"] = "auto",
        diagonal: Sequence[tuple[str, str]] = (),
        variations: bool = False,
        near_copies: bool = False,
        least_share: float = 0.02,
        names: Sequence[str] | None = None,
        majority_share: Array | None = None,
        claimed_share: float | None = None,
        n_bootstrap: int | None = None,
        n_permutations: int | None = None,
        cv_seeds: int | None = None,
        seed: int = 0,
    ) -> analysis.Traits:
        """Latent traits of the matrix; settings as for ``traitmap.decompose``.

        names: of the first components; None takes those of the study. MatrixError where there are too few
        measured cells.
        """
        return api.traits(
            self,
            scale=scale,
            components=components,
            rotate=rotate,
            mask_diagonal=mask_diagonal,
            diagonal=diagonal,
            variations=variations,
            near_copies=near_copies,
            least_share=least_share,
            names=names,
            majority_share=majority_share,
            claimed_share=claimed_share,
            n_bootstrap=n_bootstrap,
            n_permutations=n_permutations,
            cv_seeds=cv_seeds,
            seed=seed,
        )

    def profile(
        self,
        *,
        parser: str | Path | None = None,
        encoder: str | Path | None = None,
        style_encoder: str | Path | None = None,
        perplexity: bool = False,
        base: str | None = None,
        sample: int | None = None,
        seed: int = 0,
        listener: Listener | None = None,
        engine: Engine | None = None,
    ) -> analysis.Profile:
        """What texts and answers say beyond scores; settings as for ``traitmap.profile``.

        A UserError for what cannot be read or loaded.
        """
        return api.profile(
            self.folder,
            parser=parser,
            encoder=encoder,
            style_encoder=style_encoder,
            perplexity=perplexity,
            base=base,
            sample=sample,
            seed=seed,
            listener=listener,
            engine=engine,
        )

    def explain(
        self,
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
        """Why gains are what they are; settings as for ``traitmap.explain``.

        MatrixError where the run has no texts or too few tasks.
        """
        return api.explain(
            self,
            features=features,
            texts=texts,
            parser=parser,
            perplexity=perplexity,
            own=own,
            composites=composites,
            units=units,
            noise=noise,
            reasons=reasons,
            answered=answered,
            near_copies=near_copies,
            n_permutations=n_permutations,
            seed=seed,
            listener=listener,
        )

    def recommend(
        self,
        *,
        target: str | None = None,
        examples: Sequence[TaskText] | pd.DataFrame | str | Path | None = None,
        texts: TextsLike | None = None,
        encoder: str | Path | None = None,
        embeddings: Mapping[str, Array] | str | Path | None = None,
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
        """Which source for a target or a few examples; settings as for ``traitmap.recommend``.

        MatrixError or DataError where something cannot be used.
        """
        return api.recommend(
            self,
            target=target,
            examples=examples,
            texts=texts,
            encoder=encoder,
            embeddings=embeddings,
            similarity=similarity,
            adapters=adapters,
            prior=prior,
            labels=labels,
            probe=probe,
            care=care,
            top=top,
            values=values,
            seed=seed,
            listener=listener,
        )

    def report(
        self,
        path: str | Path | None = None,
        *,
        fast: bool = False,
        parser: str | Path | None = None,
        listener: Listener | None = None,
    ) -> Path:
        """Write the HTML report, by default ``report.html`` in the run folder; see ``write_report``.

        UserError where it cannot be written, or the parser cannot be loaded.
        """
        return api.write_report(self, path, fast=fast, parser=parser, listener=listener)


def open_run(folder: str | Path) -> Run:
    """A run that exists, finished or not. Nothing is read but whether it is one.

    RunError where the folder holds none.
    """
    return Run(open_store(folder).folder)


def status(run: Run | str | Path, *, verify: bool = False) -> RunStatus:
    """What of a run is done, failed and missing, and who is running it now.

    verify: hold every file against its checksum too, and name the damaged ones.
    RunError where there is no run.
    """
    return run_status(_folder(run), verify=verify)


def query(run: Run | str | Path, sql: str, *, seconds: float = 600.0, memory_mb: int = 4096) -> pd.DataFrame:
    """The answer to one SELECT in DuckDB's SQL over the tables of a run, as a frame.

    Tables: ``outcomes`` (one row an item of a cell, with source, seed, target), ``cells``, ``adapters``,
    ``sources``, ``targets``, ``texts``. Cells that are damaged are left out, with a warning. UserError where
    the SQL cannot be answered, or not in so many seconds and so much memory. See ``streamed_query`` for an
    answer that is larger than the memory.
    """
    with streamed_query(run, sql, seconds=seconds, memory_mb=memory_mb) as answer:
        for path, why in answer.left_out.items():
            warnings.warn(f"{path}: damaged ({why}); left out", stacklevel=2)
        return answer.rows.read_all().to_pandas()


def streamed_query(
    run: Run | str | Path, sql: str, *, seconds: float = 600.0, memory_mb: int = 4096
) -> AbstractContextManager[Answered]:
    """Like ``query``, some rows at a time: a context in which ``rows`` can be read once.

    ``rows`` is a reader of Arrow batches; ``left_out`` names damaged cells and why they are left out.
    seconds, memory_mb: what DuckDB may take until the last row is read.
    """
    from traitmap.runs.query import answered  # DuckDB and pandas: only here

    return answered(open_store(_folder(run)), sql, seconds=seconds, memory_mb=memory_mb)


def gc(run: Run | str | Path, *, delete: bool = False) -> tuple[Waste, ...]:
    """What in a run folder no entry of its study needs: former cells and adapters, leftovers, quarantine.

    delete: remove it; RunError where another process writes the run.
    """
    store = open_store(_folder(run))
    return remove_waste(store) if delete else find_waste(store)


def _folder(run: Run | str | Path) -> str | Path:
    return run.folder if isinstance(run, Run) else run


PREDICTIONS = "completion.json"
FORMAT = 1
_NUMBERS = ("value", "stderr", "gain", "gain_low", "gain_high")


def completion_data(matrix: TransferMatrix) -> dict[str, Any]:
    """The predicted cells of a completed matrix as JSON data, with how they came about.

    Unknown numbers are null, as everywhere in JSON.
    """
    cells = [
        {
            "source": cell.source,
            "target": cell.target,
            "reason": cell.reason,
            **{name: number if isfinite(number := getattr(cell, name)) else None for name in _NUMBERS},
        }
        for cell in matrix.cells
        if cell.status == "predicted"
    ]
    return {"format": FORMAT, "how": matrix.conditions["completion"], "cells": cells}


def with_predictions(matrix: TransferMatrix, folder: Path) -> TransferMatrix:
    """A run's matrix with its predicted cells where none is measured; as it is where the run has none.

    RunError where the file is damaged.
    """
    path = folder / PREDICTIONS
    if not path.is_file():
        return matrix
    try:
        raw = read_sealed_json(path)
        predictions = {(cell["source"], cell["target"]): cell for cell in raw["cells"]}
        return _filled(matrix, predictions, raw["how"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: damaged ({error}); remove it, or run with --budget again.") from None


def _filled(
    matrix: TransferMatrix, predictions: Mapping[tuple[str, str], Mapping[str, Any]], how: Mapping[str, Any]
) -> TransferMatrix:
    values, cells = matrix.values.copy(), []
    for cell in matrix.cells:
        row, column = matrix.sources.index(cell.source), matrix.targets.index(cell.target)
        prediction = predictions.get((cell.source, cell.target))
        if cell.seed is None and prediction is not None and not isfinite(matrix.values[row, column]):
            numbers = {name: prediction[name] for name in _NUMBERS}
            numbers = {name: nan if number is None else float(number) for name, number in numbers.items()}
            cell = replace(cell, **numbers, status="predicted", reason=prediction["reason"])
            values[row, column] = cell.value
        cells.append(cell)
    filled = replace(matrix, values=values, cells=tuple(cells))
    if not filled.predicted.any():
        return matrix
    return replace(filled, conditions={**matrix.conditions, "completion": dict(how)})


def contamination_of(
    sources: Sequence[LoadedSource], targets: Sequence[LoadedTarget], listener: Listener = silent
) -> analysis.Contamination:
    """Overlap of all training examples with all items, as they are loaded.

    Merges and checkpoints hold what the sources hold that they are made of. Items count as they are asked,
    without few-shot examples in front. Progress in stage ``contamination``.
    """
    parents = {
        source.name: source.variation.parents
        for source in sources
        if source.variation is not None and (source.merge is not None or source.step is not None)
    }
    trained = texts_of_sources(source for source in sources if source.name not in parents)
    return analysis.find_contamination(trained, questions_of_targets(targets), listener, parents=parents)


def keep_contamination(
    folder: str | Path,
    sources: Sequence[LoadedSource],
    targets: Sequence[LoadedTarget],
    listener: Listener = silent,
) -> None:
    """Write ``contamination.json`` into a run folder, unless it is there for these very texts.

    RunError where another process writes the run.
    """
    key = contamination_key(sources, targets)
    with locked_store(folder) as store:
        try:
            before = read_contamination(store)
        except RunError:
            before = None
        if before is None or before.get("key") != key:
            write_contamination(store, contamination_of(sources, targets, listener).to_json(), key)


def keep_item_groups(folder: str | Path, targets: Sequence[LoadedTarget]) -> None:
    """Write ``item_groups.json`` into a run folder, unless it is there for these very items.

    RunError where another process writes the run.
    """
    columns = {target.name: target.groups for target in targets if target.groups is not None}
    key = digest([[target.name, target.digest, target.groups] for target in targets])
    with locked_store(folder) as store:
        try:
            before = read_item_groups(store)
        except RunError:
            before = None
        if before is None or before.get("key") != key:
            found = analysis.repeated_items(questions_of_targets(targets), columns)
            write_item_groups(store, found, key)


def contamination_in(folder: str | Path) -> analysis.Contamination | None:
    """What a run's training texts hold of its targets; None where nothing was compared.

    RunError where the record is damaged.
    """
    record = read_contamination(open_store(folder))
    try:
        return None if record is None else analysis.contamination_from_json(record)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{folder}: contamination.json is damaged ({error!r}); remove it, and `traitmap run` "
            "compares again."
        ) from None


def drift_in(folder: str | Path | None) -> tuple[AdapterDrift, ...]:
    """The drift of a run's adapters, text by text; empty where none was measured, or there is no run.

    RunError where the record is damaged.
    """
    if folder is None:
        return ()
    from traitmap.runs.drift import read_drift  # scipy's tests, for few who ask

    return read_drift(open_store(folder))


def overlap_in_words(overlap: analysis.ItemOverlap) -> str:
    """How many of a target's items a source's training texts hold, for a reader of a recommendation.

    The words stand in recommendations and in the report.
    """
    return f"its training texts hold {len(overlap.touched):,} of {overlap.items:,} items of the target"
