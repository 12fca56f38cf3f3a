"""kill -9 of every command that writes: afterwards all is as before or as if nothing had happened.

    python benchmarks/chaos_commands.py FOLDER --output FILE.json       20 kills of each command
    python benchmarks/chaos_commands.py FOLDER --kills 2 --only gc      a few, for the tests
    python benchmarks/chaos_commands.py --table FILE.json               the tables of a results file

Without ``--only`` three kills of ``chaos.py`` follow: of a driver of the real engine, training and answering.

One small run is made by the fake engine. For every kill it is copied, and a command is started on the copy in
a process of its own that is killed: every other time at a moment drawn uniformly over the time that the
undisturbed command takes, else just before one of its file operations (an open for writing, a rename, a
removal, a new folder), drawn uniformly over all of them, since most of the time nothing is written. Then
every file that the command may touch must be as it was before or as the undisturbed command leaves it; of a
command that keeps its progress (``run``) only what is finished counts. Then the command is run again, and all
files must be as the undisturbed command leaves them. Seconds, process numbers and temporary files are left
out of the comparison.

A results file that is there already is completed. Prints Markdown; ends with 1 where a kill left anything
else. FOLDER is removed.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import io
import json
import os
import pkgutil
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from chaos import chaos_of_drivers
from record import conditions, save
from typer.models import OptionInfo

import traitmap
from traitmap import analysis, api
from traitmap.api.budget import run_on_budget
from traitmap.api.exchange import FORMATS
from traitmap.api.preparation import load_data
from traitmap.api.runs import keep_contamination, keep_item_groups
from traitmap.cli import app, main
from traitmap.engine.fake import FakeEngine
from traitmap.exports.model_card import update_card
from traitmap.progress import silent
from traitmap.report import audit as reports
from traitmap.report.plain_page import write_page
from traitmap.runs.execute import execute
from traitmap.runs.files import PARTIAL
from traitmap.study.load import load_study
from traitmap.study.settings import Study

STUDY = """
name: chaos
model: builtin:mini
training: {max_steps: 5}
limit: 12
sources:
  - {name: stars, task: mini_stars, limit: 40}
  - {name: sums, task: mini_arithmetic, limit: 40}
  - {name: reviews, task: mini_reviews, limit: 40}
targets: [mini_stars, mini_reviews, mini_arithmetic]
"""
TASKS = """
name: tasks
model: builtin:mini
limit: 8
sources: [{name: one, path: rows/one.jsonl}]
targets: [{name: two, path: rows/two.jsonl}]
"""
TINY = (  # a base of a few thousand parameters
    *("--hidden-size", "16", "--num-layers", "1", "--num-attention-heads", "2", "--intermediate-size", "32"),
    *("--vocab-size", "300", "--context", "32", "--sequence-length", "16", "--batch-size", "2"),
    *("--steps", "3", "--threads", "1", "--device", "cpu"),
)
SCORES = "source,a,b,c\n__baseline__,0.1,0.2,0.3\nx,0.2,0.3,0.4\ny,0.3,0.1,0.5\n"
# What tells when and by whom a file was written; no result.
_TIMES = ("seconds", "started", "heard", "checksum", "records", "training_seconds", "evaluation_seconds")
_NEVER = frozenset({"run.lock", "progress.json"})
_WRITES = frozenset(
    {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
)

Work = Callable[[Path], None]


@dataclass(frozen=True)
class Command:
    """A command on a copy of the prepared folder.

    work: does it. progress: what is finished is kept, so that a state between before and after is right.
    prepare: what the copy needs first. words: as it is typed, or what stands for that.
    """

    name: str
    work: Work
    progress: bool = False
    prepare: Work | None = None
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """What came of the kills of one command.

    unchanged, completed, between: kills after which the files were as before, as after, or (of a command that
    keeps its progress) some of both. wrong: kills that left anything else, or after which running again did.
    """

    command: str
    kills: int
    operations: int
    unchanged: int
    completed: int
    between: int
    wrong: int


def typed(*words: str) -> Work:
    """A command as it is typed, in the folder; anything but exit code 0 is an error."""

    def work(folder: Path) -> None:
        os.chdir(folder)
        said = io.StringIO()
        with redirect_stdout(io.StringIO()), redirect_stderr(said):
            try:
                main(words)
            except SystemExit as end:
                if end.code:
                    raise RuntimeError(
                        f"{' '.join(words)} ended with {end.code}: {said.getvalue()}"
                    ) from None

    return work


def commands(study: Study, data: tuple[Any, Any]) -> list[Command]:
    """Every command that writes, by the application's own list: one that is not known here is named."""

    def run(folder: Path, budget: float | None = None) -> None:
        """All that ``traitmap run`` writes, on data that are loaded once for all kills."""
        os.chdir(folder)
        if budget is None:
            store = execute(study, FakeEngine(), *data)
        else:
            store, _ = run_on_budget(study, FakeEngine(), *data, silent, share=budget, seed=0)
        keep_item_groups(store.folder, data[1])
        keep_contamination(store.folder, *data)

    def audit(folder: Path) -> None:
        """All that ``traitmap audit`` writes: a run of its own, its page, and what was asked for."""
        os.chdir(folder)
        adapter = sorted(Path("runs/chaos/adapters").iterdir())[0]
        done = api.audit(
            [adapter], base="builtin:mini", packs=["mini"], only=["mini_stars"], limit=8, name="audit",
            output="runs", drift=False, engine=FakeEngine(), listener=silent,
        )  # fmt: skip
        write_page(Path(done.folder) / "audit.html", reports.audit_page(done))
        write_page(Path("audit.xml"), reports.audit_junit(done))
        update_card(Path("CARD.md"), reports.audit_markdown(done))

    def former_version(folder: Path) -> None:
        """Cells and an adapter that nothing needs, a killed writer's rest, a damaged file set aside."""
        place = folder / "runs" / "chaos"
        cell = sorted((place / "cells").iterdir())[0]
        shutil.copy(cell, place / "cells" / f"{'0' * 32}.parquet")
        shutil.copy(cell, place / "cells" / f"{PARTIAL}{'1' * 32}.parquet")
        (place / "adapters" / ("2" * 32)).mkdir()
        (place / "adapters" / ("2" * 32) / "adapter_config.json").write_text("{}")

    run_, new, table = "runs/chaos", "made", "scores.csv"
    runs = {"progress": True, "prepare": _without_run}
    cards = {"progress": True}
    return [
        Command("run", lambda folder: run(folder), words=("run", "--output"), **runs),
        Command("run --budget", lambda folder: run(folder, budget=0.6), words=("run", "--budget"), **runs),
        Command("audit", audit, progress=True, words=("audit", "--output", "--junit", "--card")),
        Command(
            "gc --delete", typed("gc", run_, "--delete"), progress=True, prepare=former_version, words=("gc",)
        ),
        _typed("import", "lm_eval", "--output", new),
        _typed("import", table, "--output", f"{new}.parquet"),
        *(
            _typed("export", run_, "--format", kind, "--output", new)
            for kind in ("lm-eval", "every-eval-ever", "csv", "parquet", "atlas")
        ),
        _typed("export", run_, "--format", "model-card", "--output", new, **cards),
        _typed("export", "tasks.yaml", "--format", "lm-eval-task", "--output", new, **cards),
        _typed("atlas", "add", new, run_),
        _typed("forecast", "study.yaml", "--from", "forecast.json", "--csv", new),
        _typed("matrix", run_, "--csv", f"{new}.csv"),
        _typed("matrix", run_, "--parquet", f"{new}.parquet"),
        _typed("query", run_, "select * from cells", "--parquet", f"{new}.parquet"),
        _typed("figure", run_, "matrix", "--output", f"{new}.svg"),
        _typed("profile", run_, "--csv", f"{new}.csv", **cards),
        _typed("compare", run_, "runs/other", "--csv", f"{new}.csv", "--html", f"{new}.html", **cards),
        _typed("answer", run_),
        _typed("init", new, **cards),
        _typed("init", new, "--from", "rows", **cards),
        _typed("report", table, "--output", f"{new}.html"),
        _typed("report", run_),
        _typed("pretrain", "words.txt", "--output", new, *TINY),
    ]


def _typed(*words: str, progress: bool = False) -> Command:
    """A command whose name in the table is how it is typed, without the run that it is typed on."""
    shown = (word for word in words if word not in ("runs/chaos", *TINY))
    name = " ".join(shown)
    return Command(name, typed(*words), progress=progress, words=words)


# Commands that only print. ``view`` writes as ``report`` does, ``mix --probe`` as ``run``.
READ_ONLY = frozenset(
    {"check", "status", "traits", "explain", "recommend", "view", "packs", "mix", "checkpoints"}
)
_WRITTEN = ("Write", "Where to write", "Folder for", "A new", "A file", "A .svg", "Put")  # how help says it
# What is written and not killed, and why.
DRIVERS = 3  # kills of the real engine's driver
NOT_KILLED = {
    "export --format mlflow": "MLflow's own store, with times in it",
    "export --format trackio": "trackio's own store, with times in it",
    "audit --markdown": "adds to a file, each time",
}


def _load_all() -> None:
    """Everything that a command imports, so that a kill does not fall into that: no model and no cluster."""
    for module in pkgutil.walk_packages(traitmap.__path__, "traitmap."):
        heavy = (
            "traitmap.engine",
            "traitmap.runs.cluster",
            "traitmap.study.templates",
            "traitmap.data.tasks",
        )
        if not module.name.startswith(heavy) and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    importlib.import_module("traitmap.engine.pretrain")


def _without_run(folder: Path) -> None:
    shutil.rmtree(folder / "runs")


def _prepared(folder: Path) -> tuple[Study, tuple[Any, Any]]:
    """The folder that every kill gets a copy of: a study, its finished run, results to import."""
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    (folder / "scores.csv").write_text(SCORES, encoding="utf-8")
    (folder / "tasks.yaml").write_text(TASKS, encoding="utf-8")
    (folder / "CARD.md").write_text("# A card\n\nwith words of its own\n", encoding="utf-8")
    documents = (" ".join(str(n * factor) for n in range(60)) for factor in range(100))
    (folder / "words.txt").write_text("\n\n".join(documents), encoding="utf-8")
    (folder / "rows").mkdir()
    for name in ("one", "two"):
        rows = [
            json.dumps({"prompt": f"{name} {number}?", "completion": str(number)}) for number in range(40)
        ]
        (folder / "rows" / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    study = load_study(folder / "study.yaml").model_copy(update={"output": "runs", "path": None})
    data = load_data(study, FakeEngine())

    def make(place: Path) -> None:
        os.chdir(place)
        store = execute(study, FakeEngine(), *data)
        keep_item_groups(store.folder, data[1])
        keep_contamination(store.folder, *data)
        api.export(store.folder, "lm_eval", format="lm-eval")
        numbers = np.random.default_rng(0).standard_normal((2, 4, 8))
        forecast = analysis.forecast_of({"stars": numbers[0]}, {"mini_stars": numbers[1]}, {})
        shutil.copytree(store.folder, "runs/other")
        (place / "forecast.json").write_text(json.dumps(forecast.to_json()))

    _finish(_fork(make, folder))
    return study, data


def _fork(work: Work, folder: Path, *, kill_at: int | None = None, count: Path | None = None) -> int:
    """A process that does the work in a folder and ends; the parent gets its number.

    kill_at: the process kills itself just before so many file operations were done. count: a file that gets
    the number of file operations, at the end.
    """
    child = os.fork()
    if child:
        return child
    done = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal done
        writes = event in _WRITES
        if event == "open":
            mode, flags = arguments[1], arguments[2]
            writes = (isinstance(mode, str) and mode[:1] in "wax+") or bool(
                isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
            )
        if writes:
            done += 1
            if done == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.addaudithook(watch)
        work(folder)
        if count is not None:
            count.write_text(str(done))
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def _finish(child: int) -> None:
    if status := os.waitpid(child, 0)[1]:
        sys.exit(f"a command that nobody killed ended with status {status}")


def _state(folder: Path) -> dict[str, str]:
    """Digest of every file, without temporary ones and without times."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and PARTIAL not in name and path.name not in _NEVER:
            found[name] = sha256(_content(path)).hexdigest()
    return found


def _content(path: Path) -> bytes:
    raw = path.read_bytes()
    if path.suffix != ".json":
        return raw
    try:
        return json.dumps(_timeless(json.loads(raw)), sort_keys=True).encode()
    except ValueError:
        return raw


def _timeless(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: _timeless(value) for key, value in data.items() if key not in _TIMES}
    return [_timeless(item) for item in data] if isinstance(data, list) else data


def _killed(command: Command, folder: Path, kills: int, draws: np.random.Generator) -> Result:
    """All kills of one command."""
    made, place = folder / "made", folder / "copy"  # one place for all: its name stands in some files

    def fresh(copy: Path) -> Path:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(made, copy)
        if command.prepare is not None:
            command.prepare(copy)
        return copy

    before = _state(fresh(place))
    started = time.perf_counter()
    _finish(_fork(command.work, place, count=folder / "count"))
    took, operations = time.perf_counter() - started, int((folder / "count").read_text())
    after = _state(place)
    counts = dict.fromkeys(("unchanged", "completed", "between", "wrong"), 0)
    for number in range(kills):
        by_operation = number % 2 == 1 and operations > 0
        while True:
            fresh(place)
            if by_operation:
                child = _fork(command.work, place, kill_at=int(draws.integers(1, operations + 1)))
            else:
                child = _fork(command.work, place)
                time.sleep(float(draws.uniform(0, took)))
                os.kill(child, signal.SIGKILL)
            if os.WIFSIGNALED(os.waitpid(child, 0)[1]):
                break  # else it ended before its moment
        left = _state(place)
        _finish(_fork(command.work, place)) if left != after else None
        again = _state(place)
        if again != after:
            kind = "wrong"
            differ = sorted(name for name in {*again, *after} if again.get(name) != after.get(name))
            print(f"{command.name}: not as undisturbed: {', '.join(differ)}", file=sys.stderr)
        elif left == before:
            kind = "unchanged"
        elif left == after:
            kind = "completed"
        else:
            kind = "between" if command.progress else "wrong"
        counts[kind] += 1
    return Result(command.name, kills, operations, **counts)


def drivers_table(kills: Sequence[Mapping[str, Any]]) -> str:
    """The table of the docs of kills of the real engine's driver."""
    lines = [
        "| while | kills | units begun before the kill | computed twice, at most | in all | same bytes |",
        "|---|---|---|---|---|---|",
    ]
    for stage in dict.fromkeys(kill["stage"] for kill in kills):
        own = [kill for kill in kills if kill["stage"] == stage]
        begun, twice = [kill["begun"] for kill in own], [kill["twice"] for kill in own]
        same = "yes" if all(kill["same"] for kill in own) else "NO"
        between = f"{min(begun)} to {max(begun)}" if min(begun) < max(begun) else str(begun[0])
        lines.append(f"| {stage} | {len(own)} | {between} | {max(twice)} | {sum(twice)} | {same} |")
    return "\n".join(lines)


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """The table of the docs of kills of every command."""
    lines = [
        "| command | kills | file operations | unchanged | completed | in between, kept | anything else |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results:
        numbers = [
            row[name] for name in ("kills", "operations", "unchanged", "completed", "between", "wrong")
        ]
        lines.append(f"| `{row['command']}` | " + " | ".join(map(str, numbers)) + " |")
    return "\n".join(lines)


def chaos(asked: argparse.Namespace) -> int:
    asked.folder.mkdir(parents=True)
    folder, about = asked.folder.resolve(), {"benchmark": "chaos", **conditions()}
    kills: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    asked.output = asked.output and asked.output.resolve()
    if asked.output and asked.output.is_file():  # of a run that was stopped: what it holds is not done again
        results = json.loads(asked.output.read_text(encoding="utf-8"))["results"]
    done = {row["command"] for row in results}
    try:
        _load_all()
        study, data = _prepared(folder / "made")
        gc.freeze()
        for command in commands(study, data):
            if command.name not in done and (not asked.only or command.name.split()[0] in asked.only):
                draws = np.random.default_rng([asked.seed, *command.name.encode()])
                results.append(asdict(_killed(command, folder, asked.kills, draws)))
                print(table(results[-1:]).splitlines()[-1], flush=True)
                save(asked.output, {**about, "results": results})
        if not asked.only:
            kills = [asdict(kill) for kill in chaos_of_drivers(folder / "drivers", DRIVERS, asked.seed)]
            save(asked.output, {**about, "results": results, "drivers": kills})
    finally:
        os.chdir("/")
        shutil.rmtree(folder)
    wrong = sum(row["wrong"] for row in results) + sum(
        not kill["same"] or kill["twice"] > 1 for kill in kills
    )
    count = len(kills) + sum(row["kills"] for row in results)
    print(f"\n{count} kills of {len(results)} commands; {wrong} left anything else.")
    return int(wrong > 0)


def not_killed(known: Sequence[Command]) -> list[str]:
    """What the application can write and no command here does: commands, options that name files, formats."""
    registered = {str(one.name or one.callback.__name__): one.callback for one in app.registered_commands}
    missing = sorted(set(registered) - READ_ONLY - {command.words[0] for command in known})
    typed_words = {(command.words[0], word) for command in known for word in command.words}
    for name, callback in registered.items():
        for parameter, annotation in get_type_hints(callback, include_extras=True).items():
            info = next(iter(getattr(annotation, "__metadata__", ())), None)
            if not isinstance(info, OptionInfo) or not str(info.help).startswith(_WRITTEN):
                continue
            # typer takes the first name of an annotated option for its default
            names = (str(info.default), *(info.param_decls or ()))
            named = [word for word in names if word.startswith("--")]
            option = next(iter(named), f"--{parameter.rstrip('_').replace('_', '-')}")
            if "Path" in str(annotation) and (name, option) not in typed_words:
                missing.append(f"{name} {option}")
    missing += [f"export --format {kind}" for kind in FORMATS if ("export", kind) not in typed_words]
    return [what for what in missing if what not in NOT_KILLED]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="a new folder; removed at the end")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--only", nargs="*", help="commands by their first word")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="results as JSON")
    parser.add_argument("--table", type=Path, help="print the tables of a results file and do nothing else")
    return parser.parse_args()


if __name__ == "__main__":
    given = _arguments()
    if given.table:
        held = json.loads(given.table.read_text(encoding="utf-8"))
        print(table(held["results"]))
        if held.get("drivers"):
            print(f"\n{drivers_table(held['drivers'])}")
        sys.exit(0)
    sys.exit(chaos(given))
