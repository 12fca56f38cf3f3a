"""Malformed, truncated and mixed files: one clear line each, with file and key, and nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import results

from traitmap.api.exchange import import_results
from traitmap.errors import MatrixError

Make = Callable[[Path], Path]


def file(name: str, content: Any) -> Make:
    return lambda folder: results.write(folder / name, content)


def raw(name: str, content: bytes) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def samples(change: Callable[[list[Any]], Any]) -> Make:
    def make(folder: Path) -> Path:
        place = results.lm_eval_folder(folder / "r", {None: [True, False, True, False]})
        (rows,) = place.rglob("samples_*")
        lines = [json.loads(line) for line in rows.read_text().splitlines()]
        changed = change(lines)
        rows.write_text(
            changed if isinstance(changed, str) else "\n".join(json.dumps(one) for one in changed)
        )
        return place

    return make


def helm(name: str, content: Any) -> Make:
    def make(folder: Path) -> Path:
        run = results.helm_run(folder / "run")
        results.write(run / name, content)
        return run

    return make


def without(content: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != key}


WHOLE = json.dumps(results.lm_eval())
CASES: dict[str, tuple[Make, str]] = {
    "truncated json": (file("a.json", WHOLE[: len(WHOLE) // 2]), r"a\.json: not valid JSON"),
    "empty json": (file("a.json", ""), r"a\.json: not valid JSON"),
    "binary json": (raw("a.json", b"\xff\xfe\x00\x01"), r"a\.json: not valid JSON"),
    "deep json": (file("a.json", "[" * 100_000), r"a\.json: not valid JSON"),
    "json of no kind": (file("a.json", {"a": 1}), r"a\.json: holds no results of a known kind"),
    "json list": (file("a.json", [1, 2]), r"a\.json: holds no results of a known kind"),
    "unknown suffix": (file("a.txt", "hello"), r"a\.txt: holds no results of a known kind"),
    "no such file": (lambda folder: folder / "none.json", r"none\.json: there is no such file"),
    "empty folder": (lambda folder: folder, "no results found in"),
    "folder of other files": (
        lambda folder: file("notes.json", {"a": 1})(folder).parent,
        r"notes\.json holds no results",
    ),
    "table in a folder": (
        lambda folder: file("notes.csv", "source,a\nx,1\n")(folder).parent,
        r"notes\.csv, a table in a folder; name it itself",
    ),
    "lm_eval results a list": (file("a.json", results.lm_eval(results=[])), r"a\.json, results: is \[\]"),
    "lm_eval no task": (file("a.json", results.lm_eval(results={})), "holds no task with a number"),
    "lm_eval task no object": (
        file("a.json", results.lm_eval(results={"senti": 3})),
        r"results\.senti: is 3, not an object",
    ),
    "lm_eval metric a word": (
        file("a.json", results.lm_eval(results={"senti": {"acc,none": "high"}})),
        r'results\.senti\.acc,none: is "high", not a number',
    ),
    "lm_eval metric a list": (
        file("a.json", results.lm_eval(results={"senti": {"acc,none": [1]}})),
        r"results\.senti\.acc,none: is \[1\], not a number",
    ),
    "lm_eval config missing model": (
        file("a.json", results.lm_eval(config={})),
        r"config\.model_args\.pretrained: is null",
    ),
    "lm_eval model_args a number": (
        file("a.json", results.lm_eval(config={"model_args": 3})),
        r"config\.model_args: is 3",
    ),
    "lm_eval config a word": (file("a.json", results.lm_eval(config="x")), r"a\.json, config: is"),
    "samples truncated": (
        samples(lambda rows: json.dumps(rows[0])[:40]),
        r"samples_senti.*line 1: not valid JSON",
    ),
    "samples no doc_id": (samples(lambda rows: [without(rows[0], "doc_id")]), r"line 1, doc_id: is None"),
    "samples a list": (samples(lambda rows: "[1]"), r"line 1: is \[1\], not an object"),
    "inspect failed": (file("a.json", results.inspect(status="error")), r"a\.json, status: is 'error'"),
    "inspect running": (file("a.json", results.inspect(status="started")), r"status: is 'started'"),
    "inspect no results": (file("a.json", results.inspect(results=None)), r"a\.json, results: is null"),
    "inspect no scores": (
        file("a.json", results.inspect(results={"scores": []})),
        r"results\.scores: is empty",
    ),
    "inspect scores no list": (
        file("a.json", results.inspect(results={"scores": 1})),
        r"scores: is 1, not a list",
    ),
    "inspect only errors": (
        file("a.json", results.inspect(results={"scores": [{"name": "m", "metrics": {"stderr": {}}}]})),
        "holds no metric but stderr",
    ),
    "eval no zip": (raw("a.eval", b"PK not a zip"), r"a\.eval: not a whole \.eval file"),
    "eval truncated": (raw("a.eval", b"PK\x03\x04" + b"\0" * 40), r"a\.eval: not a whole \.eval file"),
    "lighteval no tasks": (file("a.json", results.lighteval(results={})), "holds no task with a number"),
    "lighteval no model": (
        file("a.json", results.lighteval(config_general={})),
        "config_general.model_name: is null",
    ),
    "lighteval score a word": (
        file("a.json", results.lighteval(results={"t|0": {"em": "x"}})),
        r'results\.t\|0\.em: is "x"',
    ),
    "record without results": (
        file("a.json", results.every_eval_ever(evaluation_results=[])),
        "evaluation_results: is empty",
    ),
    "record result no object": (
        file("a.json", results.every_eval_ever(evaluation_results=[1])),
        r"evaluation_results\[0\]: is 1, not an object",
    ),
    "record score missing": (
        file("a.json", results.every_eval_ever(evaluation_results=[{"metric_config": {}}])),
        r"evaluation_results\[0\]\.score_details: is null",
    ),
    "record model a number": (
        file("a.json", results.every_eval_ever(model_info={"id": 3})),
        r"model_info\.id: is 3, not text",
    ),
    "helm statistics no list": (helm("stats.json", {}), r"stats\.json: is \{\}, not a list"),
    "helm no metric": (helm("stats.json", []), "holds none of the metrics"),
    "helm no adapter": (helm("run_spec.json", {"name": "x"}), r"run_spec\.json, adapter_spec: is null"),
    "opencompass no models": (file("a.csv", "dataset,version,metric,mode\n"), "line 1: names no model"),
    "opencompass ragged": (
        file("a.csv", "dataset,version,metric,mode,m\ngsm8k,1,acc,gen\n"),
        r"a\.csv, line 2: has 4 fields, the header has 5",
    ),
    "opencompass empty": (file("a.csv", "dataset,version,metric,mode,m\n"), "holds no dataset with a metric"),
    "opencompass a word": (
        file("a.csv", "dataset,version,metric,mode,m\ngsm8k,1,acc,gen,good\n"),
        r'a\.csv, line 2, m: is "good", not a number',
    ),
    "table not text": (raw("a.csv", b"\xff\xfe\x00\x01\x02"), r"a\.csv"),
    "parquet truncated": (raw("a.parquet", b"PAR1 and no more"), r"a\.parquet"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_line_names_file_and_key(case: str, tmp_path: Path) -> None:
    make, saying = CASES[case]
    place = tmp_path / "given"
    place.mkdir()
    with pytest.raises(MatrixError, match=saying) as caught:
        import_results([make(place)], tmp_path / "run")
    assert "Traceback" not in str(caught.value)
    assert str(caught.value).splitlines()[0].strip()
    assert not (tmp_path / "run").exists()
