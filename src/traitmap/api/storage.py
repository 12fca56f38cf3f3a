"""What is kept of a run: asked in SQL, and rid of what nothing needs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from traitmap.runs.query import Answered
    from traitmap.runs.waste import Waste


def query(run: str | Path, sql: str) -> pd.DataFrame:
    """The answer to one SELECT over the tables of a run, as a frame.

    Tables: ``outcomes`` (one row an item of a cell, with source, seed, target), ``cells``, ``adapters``,
    ``sources``, ``targets``, ``texts``. Cells that are damaged are left out, with a warning. UserError where
    the SQL cannot be answered. See ``streamed_query`` for an answer that is larger than the memory.
    """
    import warnings

    with streamed_query(run, sql) as found:
        for path, why in found.left_out.items():
            warnings.warn(f"{path}: damaged ({why}); left out", stacklevel=2)
        return found.rows.read_all().to_pandas()


def streamed_query(run: str | Path, sql: str) -> AbstractContextManager[Answered]:
    """Like ``query``, some rows at a time: a context in which ``rows`` can be read once."""
    from traitmap.runs.query import answered
    from traitmap.runs.store import open_store

    return answered(open_store(run), sql)


def gc(run: str | Path, *, delete: bool = False) -> tuple[Waste, ...]:
    """What in a run folder no entry of its study needs: former cells and adapters, leftovers, quarantine.

    delete: remove it; RunError where another process writes the run.
    """
    from traitmap.runs.store import open_store
    from traitmap.runs.waste import find_waste, remove_waste

    store = open_store(run)
    return remove_waste(store) if delete else find_waste(store)
