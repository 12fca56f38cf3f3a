"""Fuzz a reader of foreign files, guided by coverage where atheris is installed.

    python benchmarks/fuzz.py study --minutes 10 --seed 1

TARGET is one of those in tests/fuzz/fuzz_targets.py: study, matrix (tables of scores in every form),
adapters, endpoint (answers of servers), imports (all results of harnesses) or one importer, such as
imports/lm-eval. Each execution turns bytes into damaged files and reads them; a result and an error of
traitmap's own tree are legal. Anything else is a fault, as is one of more than ten CPU seconds: it is
told once per place in the code, and its files are kept under tests/fuzz/seeds/TARGET/, which `make test`
reads again from then on. Prints executions, faults and coverage (edges of the package's own code). Exit
code 1 with any fault.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[1]
SEEDS = ROOT / "tests" / "fuzz" / "seeds"
SLOW = 10.0  # CPU seconds of one execution
LONGEST = 1500  # bytes that drive one execution
READ_BY = {  # modules whose code counts for the coverage of a target
    "study": ("study.load",),
    "imports": ("imports.discovery", "imports.columns", "imports.writing", "matrix"),
    "matrix": ("matrix.io", "matrix.layouts", "matrix.tables", "matrix.targets"),
    "adapters": ("data.adapters",),
    "endpoint": ("engine.endpoint.protocol",),
}
_COVERAGE = re.compile(rb"cov: (\d+)")


class Fuzzing:
    """Executions of one target, its faults told once per place, and an end after so many seconds."""

    def __init__(self, target: str, seconds: float, keep: Path, told: Path) -> None:
        from fuzz_targets import EACH_IMPORTER, TARGETS

        targets = {**TARGETS, **EACH_IMPORTER}
        if target not in targets:
            raise SystemExit(f"{target}: no such target; there are {', '.join(targets)}")
        self.name, self.target = target.split("/")[0], targets[target]
        self.seconds, self.keep, self.told = seconds, keep, told
        self.faults: dict[str, int] = {}
        self.executions, self.slowest = 0, 0.0
        self.started = time.monotonic()
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.place = Path(tempfile.mkdtemp(prefix="traitmap-fuzz-", dir=memory))

    def __call__(self, data: bytes) -> None:
        folder = self.place / "files"
        folder.mkdir()
        begun = time.process_time()  # of this machine, not of its other work
        try:
            self.target.run(data, folder)
        except BaseException as error:
            self._fault(_where(error), error, folder)
        took = time.process_time() - begun
        if took > SLOW:
            self._fault("slow", TimeoutError(f"{took:.0f} seconds"), folder)
        self.executions, self.slowest = self.executions + 1, max(self.slowest, took)
        shutil.rmtree(folder)
        if time.monotonic() - self.started > self.seconds:
            self.end()

    def _fault(self, where: str, error: BaseException, folder: Path) -> None:
        self.faults[where] = self.faults.get(where, 0) + 1
        if self.faults[where] > 1:
            return
        kept = self.keep / self.name / hashlib.sha256(where.encode()).hexdigest()[:8]
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder, kept)
        said = "".join(traceback.format_exception(error)).strip().splitlines()
        print("\n".join(["FAULT " + where, str(kept), *said[-12:]]), file=sys.stderr, flush=True)

    def end(self) -> None:
        """Write the figures and leave: libFuzzer does not come back from its loop."""
        figures = {
            "executions": self.executions,
            "seconds": round(time.monotonic() - self.started),
            "slowest": round(self.slowest, 2),
            "faults": self.faults,
        }
        self.told.write_text(json.dumps(figures))
        shutil.rmtree(self.place, ignore_errors=True)
        sys.stderr.flush()
        os._exit(0)


def _where(error: BaseException) -> str:
    """Type and place of a fault: the innermost line of the package itself, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "traitmap" in frame.filename and "/src/" in frame.filename]
    last = (own or frames)[-1]
    return f"{type(error).__name__} {Path(last.filename).name}:{last.name}:{last.lineno}"


def _loop(arguments: argparse.Namespace) -> None:
    """The inner process: executions without end, until the time is over."""
    sys.path[:0] = [str(ROOT / "tests" / "fuzz"), str(ROOT / "tests" / "imports")]
    warnings.filterwarnings("error", category=RuntimeWarning, module="traitmap")
    start = (arguments.target, 60 * arguments.minutes, Path(arguments.keep), Path(arguments.inner))
    if arguments.engine == "random":
        fuzzing, drawing = Fuzzing(*start), random.Random(arguments.seed)
        while True:
            fuzzing(drawing.randbytes(drawing.randrange(LONGEST)))
    import atheris

    with atheris.instrument_imports(include=["traitmap"]):
        for module in READ_BY[arguments.target.split("/")[0]]:
            importlib.import_module(f"traitmap.{module}")
    fuzzing = Fuzzing(*start)
    options = [f"-seed={arguments.seed}", f"-max_len={LONGEST}", "-len_control=10", "-rss_limit_mb=4096"]
    atheris.Setup([sys.argv[0], *options, "-timeout=60", "-verbosity=1", arguments.corpus], fuzzing)
    atheris.Fuzz()


def _has_atheris() -> bool:
    try:
        import atheris  # noqa: F401
    except ImportError:
        return False
    return True


def main() -> int:
    """Run the loop in a process of its own and tell what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", metavar="TARGET", help="study, matrix, imports, or imports/FORMAT")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=("atheris", "random"))
    parser.add_argument("--keep", default=str(SEEDS), help="folder for the files of faults")
    parser.add_argument("--inner", help=argparse.SUPPRESS)
    parser.add_argument("--corpus", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.engine = arguments.engine or ("atheris" if _has_atheris() else "random")
    if arguments.inner:
        _loop(arguments)
    with tempfile.TemporaryDirectory(prefix="traitmap-fuzz-") as folder:
        told, corpus = Path(folder) / "figures.json", Path(folder) / "corpus"
        corpus.mkdir()
        drawing = random.Random(arguments.seed)
        for at in range(64):  # libFuzzer grows inputs slowly from nothing
            (corpus / str(at)).write_bytes(drawing.randbytes(drawing.randrange(4, 400)))
        command = [sys.executable, __file__, arguments.target, f"--minutes={arguments.minutes}"]
        command += [f"--seed={arguments.seed}", f"--engine={arguments.engine}", f"--keep={arguments.keep}"]
        child = subprocess.Popen(
            [*command, f"--inner={told}", f"--corpus={corpus}"], stderr=subprocess.PIPE, stdout=sys.stderr
        )
        coverage = _followed(child)
        if not told.exists():
            print(f"the fuzzer itself ended early, with exit code {child.returncode}", file=sys.stderr)
            return 1
        figures = json.loads(told.read_text())
    rate = figures["executions"] / max(figures["seconds"], 1)
    print(
        f"{arguments.target}: {figures['executions']:,} executions in {figures['seconds']} s ({rate:.0f}/s), "
    )
    print(
        f"  coverage {coverage or 'unknown'} edges, slowest {figures['slowest']} s, engine {arguments.engine}"
    )
    print(f"  seed {arguments.seed}, faults {len(figures['faults'])}")
    for where, count in figures["faults"].items():
        print(f"  {where}: {count} times")
    return 1 if figures["faults"] else 0


def _followed(child: subprocess.Popen[bytes]) -> str | None:
    """Hand on what the inner process says but libFuzzer's own lines; the last coverage that these tell."""
    coverage = None
    assert child.stderr is not None
    for line in child.stderr:
        found = _COVERAGE.search(line)
        if found:
            coverage = found[1].decode()
        elif not line.startswith((b"INFO", b"WARNING", b"#")):
            sys.stderr.buffer.write(line)
            sys.stderr.flush()
    child.wait()
    return coverage


if __name__ == "__main__":
    sys.exit(main())
