"""Which source for a target: recommenders judged on any matrix."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from traitmap.api.runs import matrix_of
from traitmap.progress import Listener, silent

if TYPE_CHECKING:
    from traitmap.analysis.recommendation.protocol import Evaluation
    from traitmap.matrix_record import TransferMatrix

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
) -> Evaluation:
    """Judge every recommender on a matrix by holding parts of it out; see ``evaluate`` for the protocol.

    matrix: a record, a run folder, or a CSV or Parquet file. texts: by task, or a JSONL file of rows
    {task, input, output, choices}. embeddings: by task, or an NPZ file of them.
    holdout: ``target``, ``source``, ``cell``, or groups of targets held out together: a mapping, or a CSV
    file with columns target and group (further columns are attributes of the target).
    Raises MatrixError or DataError where a file cannot be used or names do not fit.
    """
    from traitmap.analysis.recommendation.protocol import evaluate
    from traitmap.data.embeddings import read_embeddings
    from traitmap.data.groups import read_groups
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
