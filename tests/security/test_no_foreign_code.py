"""Nothing that is read runs code: no pickles, no templates that reach out, no functions unasked."""

from __future__ import annotations

import ast
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from traitmap.data.harness import open_task, sandboxed_templates
from traitmap.errors import DataError, ModelError, StudyError, TraitmapError
from traitmap.runs.plan import adapter_digest
from traitmap.study.load import load_study
from traitmap.study.settings import Model
from traitmap.study.template import compiled, syntax_fault

SOURCE = Path(__file__).parents[2] / "src" / "traitmap"
UNPICKLING = {
    "pickle",
    "cPickle",
    "_pickle",
    "cloudpickle",
    "dill",
    "shelve",
    "joblib",
    "marshal",
    "jsonpickle",
}
# Sends a task, as objects in memory, from a run's own driver to its own workers; no file is read by it.
BETWEEN_OWN_PROCESSES = {"runs/cluster/portable.py"}


def _calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def _faults(text: str) -> list[str]:
    """What a module does that could run code out of a file."""
    tree, found = ast.parse(text), []
    for node in ast.walk(tree):
        named = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        named += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"import {name}" for name in named if name.split(".")[0] in UNPICKLING]
    for name, call in _calls(tree):
        given = {one.arg: ast.unparse(one.value) for one in call.keywords}
        last = name.rsplit(".", 1)[-1]
        if name in ("torch.load",) and given.get("weights_only") != "True":
            found.append(name)
        if (
            last in ("read_pickle", "to_pickle", "unsafe_load", "full_load", "eval", "exec")
            and "ast." not in name
        ):
            found += (
                [name] if name in ("eval", "exec") or ("." in name and last not in ("eval", "exec")) else []
            )
        if name == "yaml.load" or (last == "load" and given.get("allow_pickle") == "True"):
            found.append(name)
        shell = last in ("system", "popen") and name != "platform.system"
        if shell or given.get("shell") == "True" or last == "mktemp":
            found.append(name)
    return found


def test_the_source_reads_no_pickle_and_runs_no_shell() -> None:
    modules = sorted(SOURCE.rglob("*.py"))
    assert len(modules) > 150
    told = {str(one.relative_to(SOURCE)): _faults(one.read_text(encoding="utf-8")) for one in modules}
    assert {
        name: faults for name, faults in told.items() if faults and name not in BETWEEN_OWN_PROCESSES
    } == {}


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from joblib import load", "torch.load(p)", "torch.load(p, weights_only=False)",
        "np.load(p, allow_pickle=True)", "pd.read_pickle(p)", "yaml.load(t)", "eval(t)",
        "os.system(t)", "subprocess.run(t, shell=True)", "tempfile.mktemp()",
    ],
)  # fmt: skip
def test_the_check_of_the_source_sees(text: str) -> None:
    assert _faults(text)


class Planted:
    """Unpickled, it leaves a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


def test_a_planted_pickle_in_an_adapter_is_never_read(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    for name in ("adapter_model.bin", "pytorch_model.bin", "adapter_model.pt"):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4, "target_modules": ["q"]}')
        (folder / name).write_bytes(pickle.dumps(Planted(trap)))
        with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
            adapter_digest(folder)
    assert not trap.exists()


def test_a_planted_pickle_in_a_base_is_never_read(tmp_path: Path) -> None:
    from traitmap.engine.base import load_base

    folder, trap = tmp_path / "base", tmp_path / "sprung"
    shutil.copytree(SOURCE / "mini" / "base", folder)
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Planted(trap)))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_base(Model(path=str(folder)), tmp_path)
    assert not trap.exists()


def test_a_base_with_code_of_its_own_is_refused_unless_the_study_trusts_it(tmp_path: Path) -> None:
    import json

    from traitmap.engine.base import load_base

    folder, trap = tmp_path / "base", tmp_path / "sprung"
    shutil.copytree(SOURCE / "mini" / "base", folder)
    (folder / "own.py").write_text(f"import os\nos.mkdir({str(trap)!r})\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}, "model_type": "own"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError):
        load_base(Model(path=str(folder)), tmp_path)
    assert not trap.exists()


# ---------------------------------------------------------------------------------------- templates


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ x.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.system('true') }}",
    "{{ self._TemplateReference__context.name }}{{ self.__init__.__globals__ }}",
    "{{ ''|attr('__class__') }}{{ (''|attr('__class__')).__mro__ }}",
    "{{ '{0.__class__.__mro__}'.format(x) }}",
    "{{ namespace.__init__.__globals__ }}",
]
BOMBS = [
    "{% for i in range(10**9) %}x{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ 'a' * 10**10 }}", "{{ [1] * 10**10 }}", "{{ 9 ** (9 ** 9) }}", "{{ 'a'.ljust(10**10) }}",
    "{{ 'a'|center(10**10) }}", "{{ '%999999999d' % 1 }}", "{{ '{:999999999}'.format(1) }}",
    "{{ ('a' * 9999).replace('a', 'a' * 9999) }}", "{{ ('a' * 9999).join(['b'] * 9999) }}",
    "{% set n = namespace(x='aa') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
    "{{ range(99999)|map('string')|map('center', 99999)|join }}",
    "{% for i in range(99999) %}{{ 'a' * 9999 }}{% endfor %}",
    "{% set x %}{% for i in range(99999) %}" + "y" * 9000 + "{% endfor %}{% endset %}",
]  # fmt: skip


@pytest.mark.parametrize("text", [*ESCAPES, *BOMBS])
def test_a_template_neither_reaches_out_nor_runs_for_ever(text: str) -> None:
    if syntax_fault(text) is None:
        with pytest.raises(Exception, match=r"unsafe|template|recursion|undefined|no attribute"):
            compiled(text).render(x="abc")
    with pytest.raises(Exception, match=r"unsafe|template|recursion|undefined|no attribute"):
        sandboxed_templates().from_string(text).render(x="abc")


def test_templates_that_people_write_are_not_in_the_way_of_the_bounds() -> None:
    text = (
        "{% for turn in turns %}{{ loop.index }}. {{ turn.role|upper }}: {{ turn['content'].strip() }}"
        "{% if not loop.last %}, {% endif %}{% endfor %} {{ ['a', 'b']|join('-') }} {{ 'b' ~ 3 }}"
        " {{ '%.2f'|format(1.5) }} {{ absent|default('none') }} {{ 2 ** 10 }} {{ 'ab' * 2 }}"
    )
    turns = [{"role": "user", "content": " hi "}, {"role": "bot", "content": "yes"}]
    for template in (compiled(text), sandboxed_templates().from_string(text)):
        told = template.render(turns=turns)
        assert told == "1. USER: hi, 2. BOT: yes a-b b3 1.50 none 1024 abab"
    long = "word " * 1_000_000  # one long document is no bomb
    assert compiled("{{ text }}").render(text=long) == long


# --------------------------------------------------------------------------------------- task files


TASK: dict[str, Any] = {
    "task": "mine",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "rows.jsonl"}},
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{ q }}",
    "doc_to_target": "{{ a }}",
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


def task(folder: Path, **changes: Any) -> str:
    (folder / "rows.jsonl").write_text('{"q": "one", "a": "1"}\n')
    text = yaml.safe_dump({key: value for key, value in {**TASK, **changes}.items() if value is not None})
    (folder / "mine.yaml").write_text(text.replace("'!", "!").replace("#'", ""))
    return str(folder / "mine.yaml")


def test_a_task_file_runs_functions_only_where_the_study_allows_it(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    code = f"import os\nos.makedirs({str(trap)!r}, exist_ok=True)\ndef same(docs):\n    return docs\n"
    (tmp_path / "own.py").write_text(code)
    for said in ("!function own.same#", "!function os.system#", "!!python/name:os.system#"):
        with pytest.raises(DataError, match=r"its own.*allow_code: true|could not determine a constr"):
            open_task(task(tmp_path, process_docs=said))
    (tmp_path / "base.yaml").write_text("process_docs: !function own.same\n")
    with pytest.raises(DataError, match=r"own\.same"):
        open_task(task(tmp_path, include="base.yaml"))
    (tmp_path / "traitmap" / "data").mkdir(parents=True)  # a file that would be taken for ours
    (tmp_path / "traitmap" / "data" / "code_tests.py").write_text(code)
    with pytest.raises(DataError, match="runs Python functions of its own"):
        open_task(task(tmp_path, process_docs="!function traitmap.data.code_tests.same#"))
    assert not trap.exists()
    assert len(open_task(task(tmp_path, process_docs="!function own.same#"), allow_code=True).eval_docs) == 1
    assert trap.exists()


def test_a_task_file_s_templates_are_sandboxed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="access to attribute '__class__' of 'str' object is unsafe"):
        open_task(task(tmp_path, doc_to_text="{{ q.__class__.__mro__ }}"))


def test_a_metric_is_never_fetched_from_the_hub(tmp_path: Path) -> None:
    for metric in ({"metric": "someone/metric"}, {"metric": "exact_match", "hf_evaluate": True}):
        with pytest.raises(DataError, match="fetched from the hub as a program"):
            open_task(task(tmp_path, metric_list=[metric]))


def test_data_that_are_pickles_are_refused(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    (tmp_path / "rows.pkl").write_bytes(pickle.dumps(Planted(trap)))
    with pytest.raises(DataError, match="reads pickles"):
        open_task(task(tmp_path, dataset_path="pandas", dataset_kwargs={"data_files": {"test": "rows.pkl"}}))
    assert not trap.exists()


# -------------------------------------------------------------------------------------------- study


LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join('*' + a for _ in range(9))}]\n"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
STUDY = "name: n\nmodel: {path: p}\nsources: [{name: s, path: f.jsonl}]\ntargets: [t]\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "more than 100000 values"),
        ("x: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("x: &a [*a]\n", "inside its own anchor"),
        (STUDY + "x: !!python/object/apply:os.system [true]\n", "not allowed here"),
        (STUDY + "output: !!python/name:os.system\n", "not allowed here"),
        (STUDY + "name: m\n", "stands twice"),
        (STUDY + "training: {learning_rate: .nan}\n", "not legal"),
        (STUDY + "training: {learning_rate: 1e999}\n", "not legal"),
        (STUDY + "sample_seed: " + "9" * 300 + "\n", "below 4294967296"),
        (STUDY + "limit: " + "9" * 5000 + "\n", "not legal"),
        ("x" * 2_000_000, "larger than"),
        ("name: \x00\n", "not allowed"),
    ],
    ids=range(12),
)
def test_a_hostile_study_file_is_a_fault_of_it(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(StudyError, match=said) as caught:
        load_study(tmp_path / "study.yaml")
    assert isinstance(caught.value, TraitmapError)
