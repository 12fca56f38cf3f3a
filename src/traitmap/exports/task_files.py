"""Targets over plain data as task files of lm-evaluation-harness, each beside the documents that it asks.

The documents are Parquet, whose types nobody guesses, and hold finished texts: lm-eval asks and scores them
as the study does, to the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import yaml
from pyarrow import parquet

from traitmap.data.conversation import RenderChat
from traitmap.data.file_targets import file_task
from traitmap.data.sources import all_targets
from traitmap.data.targets import load_target
from traitmap.errors import DataError
from traitmap.runs.files import write_output
from traitmap.study.settings import Study, Target


def export_task_files(
    study: Study, folder: str | Path, render_chat: RenderChat | None = None
) -> tuple[Path, ...]:
    """Write ``NAME.yaml`` and its documents for each target with a ``path``; returns the YAML files.

    render_chat: as for ``load_target``. What a ``limit`` leaves out is not written, unless few-shot
    examples are drawn from it.
    DataError where no target is over plain data, or one cannot be loaded.
    """
    targets = [target for target in all_targets(study) if target.path is not None]
    if not targets:
        raise DataError("no target of the study is over plain data; its tasks have task files already")
    folder = Path(folder).absolute()
    return tuple(_write(study, target, folder, render_chat) for target in targets)


def _write(study: Study, target: Target, folder: Path, render_chat: RenderChat | None) -> Path:
    rows = file_task(study, target, render_chat)
    from_itself = rows.config.get("fewshot_split") == "test"
    whole = target.model_copy(update={"limit": len(rows.documents["test"])})
    asked = load_target(study, whole if from_itself else target, render_chat).documents()
    config: dict[str, Any] = {
        **rows.config,
        "dataset_path": "parquet",
        "num_fewshot": target.num_fewshot or 0,
    }
    function = config.pop("process_results", None)
    files = {"test": asked, **{split: docs for split, docs in rows.documents.items() if split != "test"}}
    config["dataset_kwargs"] = {
        "data_files": {
            split: str(_write_documents(docs, folder / f"{target.name}.{split}.parquet"))
            for split, docs in files.items()
        }
    }
    lines = [
        f"# Rows of {Path(rows.dataset).name}: {' '.join(rows.read_as.split())}.",
        "# lm-eval looks for relative data_files in the folder that it runs in, so these are absolute:",
        "# change them where you move the files.",
        yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100).rstrip(),
    ]
    if target.apply_chat_template:
        lines.insert(1, "# The study asks it with --apply_chat_template --fewshot_as_multiturn.")
    if function is not None:
        lines.append(f"process_results: !function {function}")
        lines.insert(1, "# Its metric is traitmap's, which must be installed beside lm-eval.")
    file = folder / f"{target.name}.yaml"
    return write_output(file, "\n".join(lines) + "\n")


def _write_documents(documents: Sequence[Mapping[str, Any]], file: Path) -> Path:
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist([dict(document) for document in documents]), sink)
    return write_output(file, sink.getvalue().to_pybytes())
