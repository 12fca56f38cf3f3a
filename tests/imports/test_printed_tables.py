"""Tables that harnesses print, as people paste them: with a log around them, or alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lm_eval.utils import make_table
from results import write

from traitmap.api import import_results, read_matrix
from traitmap.errors import MatrixError
from traitmap.imports.discovery import find_evaluations
from traitmap.imports.reading import Evaluation

RUN = (
    "hf ({'pretrained': 'org/base', 'peft': 'org/goat', 'dtype': 'float32'}), gen_kwargs: ({}), limit: 20.0, "
)
RUN += "num_fewshot: None, batch_size: 8"


def results() -> dict[str, Any]:
    """Three levels of groups, two metrics, two filters, a metric where lower is better, tasks of one name."""

    def scores(value: float) -> dict[str, Any]:
        return {"acc,none": value, "acc_stderr,none": value / 10}

    return {
        "results": {
            "mmlu": {"alias": "mmlu", **scores(0.3)},
            "mmlu_humanities": {"alias": "humanities", **scores(0.31)},
            "mmlu_law": {"alias": "law", **scores(0.3211)},
            "mmlu_art": {"alias": "art", "acc,none": 0.29, "acc_stderr,none": "N/A"},
            "cmmlu": {"alias": "cmmlu", **scores(0.4)},
            "cmmlu_law": {"alias": "law", **scores(0.41)},
            "gsm8k": {
                "alias": "gsm8k",
                "exact_match,strict-match": 0.0123,
                "exact_match_stderr,strict-match": 0.002,
                "exact_match,flexible-extract": 0.05,
                "exact_match_stderr,flexible-extract": 0.003,
            },
            "wikitext": {
                "alias": "wikitext",
                "word_perplexity,none": 33.1234,
                "word_perplexity_stderr,none": "N/A",
            },
        },
        "group_subtasks": {
            "mmlu": ["mmlu_humanities"],
            "mmlu_humanities": ["mmlu_law", "mmlu_art"],
            "cmmlu": ["cmmlu_law"],
        },
        "groups": {"mmlu": {"alias": "mmlu", **scores(0.3)}},
        "versions": {"mmlu": 2, "mmlu_law": 1.0, "gsm8k": 3.0},
        "n-shot": {"mmlu_law": 5, "mmlu_art": 5, "gsm8k": 8},
        "higher_is_better": {
            "mmlu_law": {"acc": True},
            "gsm8k": {"exact_match": True},
            "wikitext": {"word_perplexity": False},
        },
    }


def printed(run: str = RUN) -> str:
    """What lm-eval prints at its end."""
    content = results()
    return "\n".join(filter(None, [run, make_table(content), make_table(content, "groups")]))


def read(path: Path) -> dict[tuple[str, str, str], Evaluation]:
    evaluations = find_evaluations([path]).evaluations
    return {(row.task, row.metric, row.filter): row for row in evaluations}


EXPECTED = {
    ("mmlu/humanities/law", "acc", "none"): (0.3211, 0.0321),
    ("art", "acc", "none"): (0.29, None),
    ("cmmlu/law", "acc", "none"): (0.41, 0.041),
    ("gsm8k", "exact_match", "strict-match"): (0.0123, 0.002),
    ("gsm8k", "exact_match", "flexible-extract"): (0.05, 0.003),
    ("wikitext", "word_perplexity", "none"): (33.1234, None),
}


def check(rows: dict[tuple[str, str, str], Evaluation]) -> None:
    named = {
        (task.replace("mmlu/humanities/", "humanities/"), *rest): row for (task, *rest), row in rows.items()
    }
    expected = {
        (task.replace("mmlu/humanities/", "humanities/"), *rest): v for (task, *rest), v in EXPECTED.items()
    }
    assert set(named) == set(expected)
    for key, (value, error) in expected.items():
        assert named[key].value == value
        assert named[key].stderr != named[key].stderr if error is None else named[key].stderr == error
    assert named["wikitext", "word_perplexity", "none"].higher_is_better is False
    assert named["gsm8k", "exact_match", "strict-match"].setting["num_fewshot"] == 8
    assert named["humanities/law", "acc", "none"].setting["version"] == 1.0


def test_a_whole_printed_table_with_its_line_is_read(tmp_path):
    rows = read(write(tmp_path / "run.md", printed()))
    check(rows)
    one = rows["gsm8k", "exact_match", "strict-match"]
    assert (one.model, one.adapter) == ("org/base", "org/goat")
    assert one.variant == {"dtype": "float32"}
    assert one.setting["limit"] == 20.0


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda text: (
            "2025-01-01:10:00:00 INFO [evaluator.py:1] Running | 20 requests\n" + text + "\n100%|###| 5/5\n"
        ),
        lambda text: "\n".join(f"worker-0 | stdout | {line}" for line in text.split("\n")),
        lambda text: "```\n" + text + "\n```\nThese are our results | see above.\n",
        lambda text: "\x1b[32m" + text.replace("\n", "\x1b[0m\r\n"),
    ],
    ids=["log", "prefixed lines", "fenced", "coloured"],
)
def test_a_table_pasted_from_a_log_is_the_same(tmp_path, wrapped):
    rows = read(write(tmp_path / "paste.log", wrapped(printed())))
    check(rows)
    assert rows["art", "acc", "none"].adapter == "org/goat"


def test_without_its_line_the_file_names_the_model(tmp_path):
    path = write(tmp_path / "goat-7b.md", printed(""))
    search = find_evaluations([path])
    assert {row.model for row in search.evaluations} == {"goat-7b"}
    assert any("called by the file, goat-7b" in note for note in search.notes)


def test_two_tables_need_a_line_each(tmp_path):
    other = RUN.replace("org/goat", "org/owl")
    both = find_evaluations([write(tmp_path / "both.txt", printed() + "\n" + printed(other))])
    assert {row.adapter for row in both.evaluations} == {"org/goat", "org/owl"}
    with pytest.raises(MatrixError, match=r"line \d+: no line above the table names its model"):
        find_evaluations([write(tmp_path / "one.txt", printed() + "\n" + printed(""))])


def test_lines_of_older_versions_are_read(tmp_path):
    old = "hf-causal (pretrained=org/base,revision=step9), limit: None, provide_description: False, "
    old += "num_fewshot: 0, "
    table = "|  Task  |Version| Metric |Value |   |Stderr|\n|--------|------:|--------|-----:|---|-----:|\n"
    table += "|arc_easy|      0|acc     |0.4369|±  |0.0102|\n|        |       |acc_norm|0.4010|±  |0.0101|\n"
    rows = read(write(tmp_path / "old.txt", old + "batch_size: None\n" + table))
    row = rows["arc_easy", "acc_norm", "none"]
    assert (row.model, row.variant, row.value, row.stderr) == (
        "org/base",
        {"revision": "step9"},
        0.401,
        0.0101,
    )
    assert row.setting == {"limit": None, "gen_kwargs": None, "num_fewshot": 0, "version": 0}


def test_printed_tables_of_a_base_and_an_adapter_are_a_matrix(tmp_path):
    base = RUN.replace(", 'peft': 'org/goat'", "")
    write(tmp_path / "in" / "base.log", printed(base))
    write(tmp_path / "in" / "goat.log", printed().replace("0.0123", "0.0523"))
    import_results([tmp_path / "in"], tmp_path / "run", metrics={"gsm8k": "exact_match,strict-match"})
    matrix = read_matrix(tmp_path / "run")
    assert matrix.sources == ("goat",)
    assert matrix.gains[0, matrix.targets.index("gsm8k")] == pytest.approx(0.04)
    assert matrix.higher_is_better["wikitext"] is False


def test_read_matrix_says_how_such_files_are_read(tmp_path):
    for name, text in (
        ("t.md", printed("")),
        ("s.csv", "dataset,version,metric,mode,m\na,1,acc,gen,2\nb,1,acc,gen,3\n"),
    ):
        with pytest.raises(MatrixError, match="traitmap import"):
            read_matrix(write(tmp_path / name, text))
    long = write(
        tmp_path / "long.csv", "task,model,metric,value\na,x,acc,1\nb,x,acc,2\na,y,acc,3\nb,y,acc,4\n"
    )
    assert read_matrix(long).values.tolist() == [[1, 2], [3, 4]]


@pytest.mark.shared
def test_what_lm_eval_printed_is_what_it_wrote(tmp_path, shared):
    file = next((shared / "fixtures" / "lm_eval_0.4.13_cli" / "m__base").glob("results_*.json"))
    content = json.loads(file.read_text())
    line = f"hf ({content['config']['model_args']}), gen_kwargs: (None), limit: None, num_fewshot: None, "
    rows = read(write(tmp_path / "t.log", f"{line}\n{make_table(content)}"))
    written = read(file)
    assert set(rows) == set(written)
    for key, row in rows.items():
        assert row.value == pytest.approx(written[key].value, abs=5e-5)
        assert row.stderr == pytest.approx(written[key].stderr, abs=5e-5)
        assert (row.model, row.adapter) == (written[key].model, written[key].adapter)
        assert row.setting["num_fewshot"] == written[key].setting["num_fewshot"]


SUMMARY = [
    ["dataset", "version", "metric", "mode", "heron-7b", "owl-7b"],
    ["sums, hard", "1d7fe4", "accuracy", "gen", "65.62", "-"],
    ["tales", "9c0a11", "perplexity", "ppl", "12.50", "10.25"],
    ["mean", "-", "naive_average", "gen", "39.06", "10.25"],
    ["--- Exam ---", "-", "-", "-", "-", "-"],
]


def opencompass(part: str) -> str:
    """A text file or a log with the summary in one of the forms in which OpenCompass gives it."""
    from tabulate import tabulate

    markdown = ["| " + " | ".join(row) + " |" for row in SUMMARY]
    markdown.insert(1, "|" + " | ".join(["-----"] * 6) + "|")
    forms = {
        "tabulate format": tabulate(SUMMARY, headers="firstrow", floatfmt=".2f"),
        "csv format": "\n".join(",".join(cell.replace(",", " ") for cell in row) for row in SUMMARY),
        "markdown format": "\n".join(markdown) + "\n",
    }
    chosen = forms if part == "all" else {part: forms[part]}
    return "20250101_000000\n" + "\n\n".join(
        f"{name}\n{'^' * 128}\n{text}\n{'$' * 128}\n\n{'-' * 128} THIS IS A DIVIDER {'-' * 128}"
        for name, text in chosen.items()
    )


@pytest.mark.parametrize("part", ["all", "tabulate format", "csv format", "markdown format"])
@pytest.mark.parametrize("name", ["summary_20250101_000000.txt", "eval.log", "summary.md"])
def test_opencompass_summaries_of_every_form(tmp_path, part, name):
    search = find_evaluations([write(tmp_path / name, opencompass(part))])
    values = {
        (row.model, " ".join(row.task.replace(",", " ").split())): row.value for row in search.evaluations
    }
    known = {key: value for key, value in values.items() if value == value}
    assert known == {
        ("heron-7b", "sums hard"): 65.62,
        ("heron-7b", "tales"): 12.5,
        ("owl-7b", "tales"): 10.25,
    }


def test_a_folder_of_opencompass_holds_its_summary_once(tmp_path):
    for suffix in (".txt", ".md"):
        write(tmp_path / f"summary_20250101_000000{suffix}", opencompass("all"))
    assert len(find_evaluations([tmp_path]).evaluations) == 4
