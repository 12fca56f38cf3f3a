"""Questions of a few-shot task come without the examples in front of them: those are training rows."""

from pathlib import Path

from traitmap.data.targets import LoadedTarget, load_target
from traitmap.study.settings import Model, Source, Study, Target

TASKS = Path(__file__).parent / "tasks"


def loaded(name: str) -> LoadedTarget:
    target = Target(name=name, task=name)
    study = Study(
        name="tiny",
        model=Model(path="builtin:mini"),
        sources=(Source(name="any", task="tiny_review"),),
        targets=(target,),
        include_path=(str(TASKS),),
    )
    return load_target(study, target)


def test_questions_stand_without_shots(monkeypatch) -> None:
    monkeypatch.chdir(TASKS)
    plain, shots = loaded("tiny_review"), loaded("tiny_review_shots")
    asked, questions = shots.texts(), shots.questions()
    assert all(text.input.endswith(question.input) for text, question in zip(asked, questions, strict=True))
    assert all(len(question.input) < len(text.input) for text, question in zip(asked, questions, strict=True))
    assert [one.output for one in questions] == [one.output for one in asked]
    assert plain.questions() == plain.texts()
