"""The list of choices in docs/scores.md: each phrase of its third column is what the line says of a table."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from traitmap.matrix.io import read_matrix

DOCS = Path(__file__).parents[1] / "docs" / "scores.md"
TABLE = "model,gsm8k,tales\nbase,38.5,55.0\ncat,45.1,60.2\ndog,41.0,58.7\nemu,39.2,41.3\n"


def with_column(name: str, cells: list[Any]) -> str:
    rows = zip(TABLE.splitlines(), [name, *cells], strict=True)
    return "\n".join(f"{row},{cell}" for row, cell in rows)


def workbook() -> bytes:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in TABLE.splitlines():
        book.active.append(
            [cell if cell.isalpha() or cell == "gsm8k" else float(cell) for cell in row.split(",")]
        )
    stored = io.BytesIO()
    book.save(stored)
    return stored.getvalue()


def with_mean() -> str:
    scores = np.random.default_rng(0).uniform(20, 70, (12, 4)).round(1)
    rows = [f"m{i},{','.join(map(str, row))},{row.mean():.2f}" for i, row in enumerate(scores)]
    return "model,a,b,c,d,helm\n" + "\n".join(rows)


LONG = "dst,src,macro_f1\nsums,base,38\ntales,base,55\nsums,cat,45\ntales,cat,60\n"
# phrase -> a table of which the line says it, and the options that it is read with
EXAMPLES: dict[str, tuple[str | bytes, dict[str, Any]]] = {
    "delimiter ;": (TABLE.replace(",", ";"), {}),
    "Windows-1252": (TABLE.replace("cat", "çat").encode("cp1252"), {}),
    "sheet 'Sheet'": (b"xlsx", {}),
    "1 title line above the header": ("Scores of May,,\n" + TABLE, {}),
    "2 header lines": (",Maths,Reading\n" + TABLE, {}),
    "1 line below the table left out": (TABLE + "Note: means\n", {}),
    "Tuned models (no numbers)": (TABLE.replace("cat", "Tuned models,,\ncat"), {}),
    "an index column": ("\n".join(f"{i or ''},{row}" for i, row in enumerate(TABLE.splitlines())), {}),
    "rows named by 'model'": ("by,model,a\nx,base,1\nx,cat,2\n", {}),
    "told apart by number: cat (2)": (TABLE.replace("dog", "cat"), {}),
    "means over 2 seeds": ("model,seed,a\nx,0,3\nx,1,5\ny,0,6\ny,1,8\n", {}),
    "decimal commas": (TABLE.replace(",", ";").replace(".", ","), {}),
    "percent": (TABLE.replace("45.1", "45.1%"), {}),
    "cat: percent brought to shares of 1": ("model,cat\nx,45%\ny,0.5\n", {}),
    "± as standard errors": (TABLE.replace("45.1", "45.1 ± 1.2"), {}),
    "gsm8k_stderr as standard errors of gsm8k": (with_column("gsm8k_stderr", [1.1, 1.2, 1.3, 1.4]), {}),
    "gsm8k std (a spread of gsm8k)": (with_column("gsm8k std", [1.1, 1.2, 1.3, 1.4]), {}),
    "marks behind numbers left out": (TABLE.replace("45.1", "45.1*"), {}),
    "brackets behind numbers left out": (TABLE.replace("45.1", "45.1 (1.2)"), {}),
    "read as missing: OOM": (TABLE.replace("45.1", "OOM"), {}),
    "base row 'base'": (TABLE, {}),
    "chance in row 'Random'": (TABLE + "Random,25,50\n", {}),
    "Average (a summary of rows)": (TABLE + "Average,40.95,53.8\n", {}),
    "sources in columns": ("task,base,cat\nsums,1,2\ntales,3,4\n", {"orientation": "columns"}),
    "organisation (text)": (with_column("organisation", list("pqrs")), {}),
    "Parameters (a size)": (with_column("Parameters", [1, 7, 7, 13]), {}),
    "came out (a year)": (with_column("came out", [2021, 2022, 2023, 2023]), {}),
    " (no name)": (with_column("", [1.5, 2.5, 2.7, 2.9]), {}),
    "helm (mean of the four)": (with_mean(), {}),
    "long (source in 'src', target in 'dst', value in 'macro_f1')": (LONG, {}),
    "lower is better: wikitext_ppl": (TABLE.replace("tales", "wikitext_ppl"), {}),
    "higher is better assumed of zest": (LONG.replace("macro_f1", "zest"), {}),
    "cells are gains over the base": ("model,a,b\nx,1,-2\ny,2,3\n", {"values": "gains"}),
}


def phrases() -> list[str]:
    """The phrases of the list, in its order."""
    rows = [
        line.split("|") for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| ")
    ]
    return [phrase for row in rows if len(row) == 6 for phrase in re.findall("`([^`]+)`", row[3])]


def test_the_list_and_the_examples_are_the_same():
    assert phrases() == list(EXAMPLES)
    assert len(EXAMPLES) > 30


@pytest.mark.parametrize("phrase", EXAMPLES)
def test_the_line_says_what_the_list_says(tmp_path, phrase):
    content, options = EXAMPLES[phrase]
    path = tmp_path / ("t.xlsx" if content == b"xlsx" else "t.csv")
    content = workbook() if content == b"xlsx" else content
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert phrase in read_matrix(path, **options).conditions["read_as"]
