"""A target whose scoring fails in lm-eval: its cells are missing with their reason, the rest is finished."""

import subprocess
import sys
from pathlib import Path

import pytest

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: rows.jsonl}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["####"], max_gen_toks: 4}}
process_results: !function judging.{name}
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
CODE = """
def good(doc, results):
    return {"acc": float(results[0].strip() == doc["answer"])}

def bad(doc, results):
    return {"acc": 0.0 if results[0] == "" else 1 / (len(results[0]) * 0)}
"""
STUDY = """
name: failing
model: builtin:mini
training: {max_steps: 2, batch_size: 2, max_length: 64}
allow_code: true
sources:
  - {name: a, path: a.csv, prompt: "{{ text }} ->", completion: " {{ label }}"}
targets:
  - {name: bad, task: bad.yaml}
  - {name: good, task: good.yaml}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for name in ("good", "bad"):
        (tmp_path / f"{name}.yaml").write_text(TASK.format(name=name))
    (tmp_path / "judging.py").write_text(CODE)
    (tmp_path / "rows.jsonl").write_text('{"question": "one", "answer": "1"}\n')
    (tmp_path / "a.csv").write_text("text,label\none,a\ntwo,b\n")
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path / "study.yaml"


def run(study: Path) -> subprocess.CompletedProcess[str]:
    asked = [sys.executable, "-m", "traitmap.cli", "run", str(study), "--output", str(study.parent / "runs")]
    return subprocess.run(asked, capture_output=True, text=True, timeout=300)


def test_its_cells_are_missing_with_their_reason_and_the_exit_code_is_3(study: Path) -> None:
    done = run(study)
    assert done.returncode == 3, done.stderr
    assert "1 adapters, 2 cells done; 0 adapters, 2 cells failed." in done.stderr
    for name in ("__baseline__", "a"):
        assert f"{name} -> bad: task 'bad': scoring of item 0 fails: ZeroDivisionError" in done.stderr


def test_a_row_that_breaks_its_template_is_told_before_anything_is_computed(study: Path) -> None:
    (study.parent / "rows.jsonl").write_text('{"question": "one"}\n')
    done = run(study)
    assert done.returncode == 2, done.stderr
    assert "answer" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (study.parent / "runs").exists()
