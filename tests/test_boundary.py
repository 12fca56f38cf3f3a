"""What the system refuses ends in one line and exit code 2, whichever command meets it.

Every command of the application is walked, so that a new one is walked too; one whose words the walk does
not know fails here until it is told.
"""

from __future__ import annotations

import ctypes
import inspect
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import typer

from prepared_run import prepared_study
from traitmap import api
from traitmap.cli import app, main
from traitmap.engine.fake import FakeEngine
from traitmap.errors import system_fault
from traitmap.runs.files import read_sealed_json, write_output, write_sealed_json

STUDY = """
name: mini
model: builtin:mini
limit: 2
training: {max_steps: 1}
sources: [{name: sums, task: mini_arithmetic, limit: 8}]
targets: [mini_reviews]
"""
# Words of required parameters that are not paths, by their names.
WORDS = {"sql": "select 1 as a", "action": "add", "name": "matrix", "rows": "no-such-adapter"}
SLOW = {"audit", "forecast", "pretrain", "check", "run"}  # load a base: walked with fewer faults


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


def command(*words: str, out: io.TextIOBase | None = None) -> Ended:
    """``traitmap`` in this process, as its entry point runs it; whatever is no promised end is raised."""
    stdout, stderr = out or io.StringIO(), io.StringIO()
    code = 0
    with redirect_stdout(stdout), redirect_stderr(stderr):
        try:
            main(words)
        except SystemExit as end:
            code = int(end.code or 0)
    return Ended(code, "" if out else stdout.getvalue(), stderr.getvalue())  # type: ignore[attr-defined]


def assert_refused(ended: Ended, *parts: str) -> None:
    """One line that names what it is about, and exit code 2."""
    assert ended.code == 2, ended
    assert ended.err.strip()
    assert "Traceback" not in ended.err
    for part in parts:
        assert part in ended.err, ended.err


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A finished run of two sources and two targets, a study, a table and texts, for everybody to read."""
    folder = Path(tempfile.mkdtemp(prefix="traitmap-boundary-"))
    folder.chmod(0o755)
    study = prepared_study(
        folder / "runs", sources=("arithmetic", "reviews"), targets=("reviews", "arithmetic"), seeds=(0,)
    )
    api.run(study, engine=FakeEngine())
    (folder / "study.yaml").write_text(STUDY)
    (folder / "table.csv").write_text("source,a,b\n__baseline__,1,2\nx,2,3\ny,3,1\n")
    (folder / "texts.txt").write_text("some words to learn from\n" * 50)
    (folder / "plain").write_text("a plain file\n")
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "bytes.json").write_bytes(b'{"a": "\xff\xfe"}')
    before = Path.cwd()
    os.chdir(folder)  # where commands write what was given no place
    try:
        yield folder
    finally:
        os.chdir(before)
        shutil.rmtree(folder)


@dataclass(frozen=True)
class Parameter:
    """A parameter of a command: its option, nothing for an argument; whether it is a path."""

    name: str
    option: str
    path: bool
    required: bool
    about: str


def parameters(callback: Callable[..., Any]) -> list[Parameter]:
    hints = get_type_hints(callback, include_extras=True)
    found = []
    for name, parameter in inspect.signature(callback).parameters.items():
        annotation = hints.get(name, parameter.annotation)
        about = next(
            info
            for info in getattr(annotation, "__metadata__", ())
            if isinstance(info, typer.models.ParameterInfo)
        )
        argument = isinstance(about, typer.models.ArgumentInfo)
        names = (str(about.default), *(about.param_decls or ()))  # typer takes the first one for a default
        declared = [word for word in names if word.startswith("--")]
        option = "" if argument else (declared or [f"--{name.rstrip('_').replace('_', '-')}"])[0]
        required = parameter.default is inspect.Parameter.empty
        found.append(Parameter(name, option, "Path" in str(annotation), required, str(about.metavar)))
    return found


COMMANDS = {
    str(one.name or one.callback.__name__): parameters(one.callback)  # type: ignore[union-attr]
    for one in app.registered_commands
}


def words_of(name: str, place: Path, **replaced: str) -> list[str]:
    """A call of a command that works, with some parameters replaced."""
    words, options = [name], []
    for parameter in COMMANDS[name]:
        if parameter.name in replaced:
            value = replaced[parameter.name]
        elif not parameter.required and not (
            parameter.about in ("STUDY", "RUN_OR_MATRIX")
            or (parameter.name in WORDS and not parameter.option)
        ):
            continue
        elif not parameter.path:
            assert parameter.name in WORDS, f"tell WORDS what {name!r} takes for {parameter.name!r}"
            value = WORDS[parameter.name]
        elif parameter.option:
            value = str(Path(tempfile.mkdtemp(dir=place)) / "new")
        elif parameter.about == "STUDY":
            value = str(place / "study.yaml")
        elif "RUN" in parameter.about:
            value = str(place / "runs" / "mini")
        elif "TEXT" in parameter.about:
            value = str(place / "texts.txt")
        elif "PATH" in parameter.about:
            value = str(place / "table.csv")
        else:  # a folder of its own
            value = str(Path(tempfile.mkdtemp(dir=place)) / "new")
        if parameter.option:
            options += [parameter.option, value]
        else:
            words.append(value)
    return [*words, *options]


PATHS = [(name, parameter.name) for name in COMMANDS for parameter in COMMANDS[name] if parameter.path]


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - SLOW - {"import"}))
def test_a_full_disk_behind_standard_output(place: Path, name: str) -> None:
    """Those left out print nothing there; ``/dev/full`` takes no byte."""
    words = words_of(name, place)
    if name in ("export", "report", "figure"):
        words = words_of(name, place, output=str(Path(tempfile.mkdtemp(dir=place)) / "new.csv.svg"))
        words += ["--format", "csv"] if name == "export" else []
    if name == "report":
        words += ["--fast"] if any(one.name == "fast" for one in COMMANDS[name]) else []
    with Path("/dev/full").open("w") as full:
        ended = command(*words, out=full)
    if "standard output" not in ended.err:  # then it has nothing to print here: an empty atlas, too few tasks
        assert command(*words).err == ended.err
    assert_refused(ended)


@pytest.mark.parametrize(("name", "parameter"), PATHS)
@pytest.mark.parametrize("fault", ["below a file", "a folder", "deep", "bytes"])
def test_a_path_that_leads_wrong(place: Path, name: str, parameter: str, fault: str) -> None:
    """A place below a plain file, a folder, 100,000 brackets, bytes that are no text: refused or done."""
    if name == "view" or (name in SLOW and fault != "below a file"):
        pytest.skip("it loads a base first, or waits")
    empty = Path(tempfile.mkdtemp(dir=place))
    value = {
        "below a file": str(place / "plain" / "x.json"),
        "a folder": str(empty),
        "deep": str(place / "deep.json"),
        "bytes": str(place / "bytes.json"),
    }[fault]
    contents = {path: path.read_bytes() for path in (place / "deep.json", place / "bytes.json")}
    try:
        ended = command(*words_of(name, place, **{parameter: value}))
    finally:
        for path, content in contents.items():
            path.write_bytes(content)
    assert ended.code in (0, 2, 3), ended
    if ended.code == 2:
        assert ended.err.strip()


# What may stand in a run folder's place, by the file that is changed.
IN_THE_RUN = {
    "run.json a folder": lambda run: (os.remove(run / "run.json"), (run / "run.json").mkdir()),
    "run.lock a folder": lambda run: (os.remove(run / "run.lock"), (run / "run.lock").mkdir()),
    "cells a file": lambda run: (shutil.rmtree(run / "cells"), (run / "cells").write_text("")),
    "groups a file": lambda run: (shutil.rmtree(run / "groups"), (run / "groups").write_text("")),
    "texts a file": lambda run: (shutil.rmtree(run / "texts"), (run / "texts").write_text("")),
    "run.json deep": lambda run: (run / "run.json").write_text("[" * 100_000),
    "study.json deep": lambda run: (run / "study.json").write_text('{"a":' * 100_000),
}
TAKE_A_RUN = sorted(  # a view shows what is wrong on its page, and waits
    name
    for name in COMMANDS
    if name != "view" and any("RUN" in one.about and not one.option for one in COMMANDS[name])
)


@pytest.mark.parametrize("name", [*TAKE_A_RUN, "run"])
@pytest.mark.parametrize("fault", sorted(IN_THE_RUN))
def test_a_run_folder_that_is_none(place: Path, name: str, fault: str) -> None:
    folder = Path(tempfile.mkdtemp(dir=place))
    shutil.copytree(place / "runs" / "mini", folder / "mini")
    IN_THE_RUN[fault](folder / "mini")
    words = words_of(name, place, run=str(folder / "mini"))
    if name == "run":
        words += ["--output", str(folder)]
    ended = command(*words)
    assert ended.code in (0, 2, 3), ended
    if name == "run" and fault == "run.json a folder":  # set aside like any damaged record, and written anew
        assert ended.code == 0
        assert (folder / "mini" / "run.json").is_file()
    elif name == "run" and fault.endswith(("folder", "a file")):
        assert_refused(ended, fault.split()[0])


CLOSED = ("run.json", "run.lock", "study.json", "cells", "texts", "groups")


def walk_without_rights(place: Path) -> list[list[Any]]:
    """Every command on runs with something that one may not read, and on a folder that one may not write."""
    ends = []
    for closed in CLOSED:
        for name in TAKE_A_RUN:
            run, output = (
                str(place / "closed" / closed / "mini"),
                str(place / "open" / f"{closed}-{name}.svg"),
            )
            runs = {one.name: run for one in COMMANDS[name] if "RUN" in one.about and not one.option}
            ended = command(*words_of(name, place / "open", **runs, output=output))
            ends.append([f"{name}: {closed}", ended.code, ended.err])
    shut, table, run = place / "shut", str(place / "table.csv"), str(place / "runs" / "mini")
    for words in (
        ("matrix", table, "--csv", f"{shut}/a.csv"),
        ("matrix", table, "--parquet", f"{shut}/a.parquet"),
        ("export", run, "-o", f"{shut}/a", "--format", "lm-eval"),
        ("export", run, "-o", f"{shut}/b", "--format", "model-card"),
        ("export", run, "-o", f"{shut}/c", "--format", "every-eval-ever"),
        ("figure", table, "matrix", "-o", f"{shut}/a.svg"),
        ("query", run, "select 1 as a", "--parquet", f"{shut}/a.parquet"),
        ("init", f"{shut}/new"),
        ("import", table, "-o", f"{shut}/new"),
    ):
        ended = command(*words)
        ends.append([f"{words[0]}: shut", ended.code, ended.err])
    return ends


def without_root_s_rights() -> None:
    """Root is an owner like any other from the next program on: modes of files hold for it too."""
    if os.getuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            assert libc.prctl(24, capability, 0, 0, 0) == 0, "PR_CAPBSET_DROP"


def test_rights_that_one_has_not_are_told_and_nothing_is_moved(place: Path) -> None:
    (place / "open").mkdir()
    (place / "shut").mkdir(mode=0o555)
    for name in ("table.csv", "texts.txt", "study.yaml"):
        shutil.copy(place / name, place / "open" / name)
    for closed in CLOSED:
        shutil.copytree(place / "runs" / "mini", place / "closed" / closed / "mini")
    for closed in CLOSED:
        (place / "closed" / closed / "mini" / closed).chmod(0)
    code = (
        "import json, sys, pathlib\n"
        "import test_boundary\n"
        "print(json.dumps(test_boundary.walk_without_rights(pathlib.Path(sys.argv[1]))))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(place)],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
        preexec_fn=without_root_s_rights,
    )
    assert done.returncode == 0, done.stderr
    for what, code_of, err in json.loads(done.stdout.splitlines()[-1]):
        assert code_of in (0, 2, 3), (what, err)
        if what.endswith(("shut", "cells", "run.json")) or what == "status: run.lock":
            assert code_of == 2, (what, err)
            assert "denied" in err, (what, err)
    assert not list((place / "closed").rglob("quarantine"))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "full"), "what: No space left on device; make room"),
        (PermissionError(13, "no", "a/b"), "a/b: Permission denied; give yourself the right"),
        (RecursionError("maximum"), "what: it is nested too deeply"),
        (OverflowError("too large"), "what: a number is too large (too large); correct"),
        (MemoryError(), "what: memory ran out"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "it is not utf-8 text (byte 0"),
        (OSError("words alone"), "what: words alone; check the file"),
    ],
)
def test_each_kind_of_refusal_has_its_words(error: BaseException, told: str) -> None:
    assert told in system_fault(error, "what")
    assert "\n" not in system_fault(error, "what")


@pytest.mark.parametrize("error", [OSError(5, "io"), RecursionError(), OverflowError(), MemoryError()])
def test_a_new_command_stands_behind_the_boundary(error: BaseException) -> None:
    """A command that fails in one of these ways, registered for the test alone."""

    def failing() -> None:
        """Example: traitmap failing"""
        raise error

    app.command()(failing)
    try:
        assert_refused(command("failing"))
    finally:
        app.registered_commands.pop()


def test_an_output_is_whole_keeps_links_and_replaces_no_device(tmp_path: Path) -> None:
    write_output(tmp_path / "new" / "a.txt", "one")
    (tmp_path / "link").symlink_to(tmp_path / "new" / "a.txt")
    write_output(tmp_path / "link", b"two")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "new" / "a.txt").read_text() == "two"
    with pytest.raises(OSError, match="full") as caught:
        write_output("/dev/full", "x")
    assert caught.value.filename == "/dev/full"
    assert Path("/dev/full").is_char_device()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.txt", "link", "new"]


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_defect(place: Path, closed: str) -> None:
    """A shell that closes what it does not want to read."""
    words = f"{sys.executable} -m traitmap.cli status {place / 'runs' / 'mini'} {closed}"
    done = subprocess.run(["sh", "-c", words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_a_device_is_no_study(tmp_path: Path) -> None:
    assert_refused(command("check", "/dev/zero"), "hardly a study file")


@pytest.mark.parametrize("name", ["run.lock", "study.json", "cells/*", "texts/*"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(place: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(place / "runs" / "mini", tmp_path / "mini")
    file = sorted((tmp_path / "mini").glob(name))[0]
    file.unlink()
    os.mkfifo(file)
    ended = command("status", str(tmp_path / "mini"), "--verify")
    assert ended.code == (2 if name == "run.lock" else 3), ended
    assert "a pipe or device stands in its place" in " ".join((ended.out + ended.err).split())


def test_a_list_of_files_that_leads_out_of_the_run_is_damage(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "runs" / "mini", tmp_path / "mini")
    ledger = read_sealed_json(tmp_path / "mini" / "run.json")
    for records in (["../../etc/passwd"], ["a\0b"], [1], "abc", ["x" * 5000], ["a/b/c"]):
        write_sealed_json(tmp_path / "mini" / "run.json", {**ledger, "records": records})
        assert_refused(command("status", str(tmp_path / "mini")), "run.json: damaged")
