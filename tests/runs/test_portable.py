"""A target is sent to a process that has neither its rows nor the modules of its task file."""

import pickle
import subprocess
import sys
from pathlib import Path

from traitmap.data.records import Response
from traitmap.data.targets import LoadedTarget, load_targets
from traitmap.runs.cluster.portable import file_modules, portable
from traitmap.study.settings import Source, Study, Target

TASK = """
task: judged
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
process_results: !function judging.judge
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
CODE = """
from functools import cache

@cache
def length(text):
    return len(text)

def judge(doc, results):
    return {"acc": float(length(results[0]) == length(doc["answer"]))}
"""
ELSEWHERE = """
import pickle, sys
from traitmap.runs.cluster.portable import install
modules, target, answers = pickle.load(open(sys.argv[1], "rb"))
install(modules)
sys.stdout.write(repr(pickle.loads(target).score(answers)))
"""


def judged(folder: Path) -> LoadedTarget:
    rows = folder / "rows.jsonl"
    rows.write_text('{"question": "one", "answer": "1"}\n{"question": "eleven", "answer": "11"}\n')
    (folder / "judging.py").write_text(CODE)
    (folder / "judged.yaml").write_text(TASK.format(rows=rows))
    study = Study(
        name="s",
        allow_code=True,
        model={"path": "fake"},
        sources=(Source(name="s", path="s.csv"),),
        targets=(Target(name="judged", task=str(folder / "judged.yaml")),),
    )
    (target,) = load_targets(study)
    return target


def test_it_scores_elsewhere_as_it_does_here(tmp_path: Path) -> None:
    target = judged(tmp_path)
    answers = [Response(text="2", tokens=1, stopped=True), Response(text="2", tokens=1, stopped=True)]
    expected = target.score(answers)
    assert [outcome.score for outcome in expected.outcomes] == [1.0, 0.0]
    (mine,) = [module for module in file_modules() if "judging" in module[0]]
    sent = tmp_path / "sent"
    sent.write_bytes(pickle.dumps(((mine,), pickle.dumps(portable(target)), answers)))
    for file in ("judging.py", "judged.yaml", "rows.jsonl"):
        (tmp_path / file).unlink()
    asked = [sys.executable, "-c", ELSEWHERE, str(sent)]
    found = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert found.stdout == repr(expected)
    assert target.score(answers) == expected  # the one that stayed is as it was
