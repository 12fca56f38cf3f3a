"""Programs that a model wrote, judged by running them on their tests, in the sandbox."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from traitmap.data.sandbox import run_code, why_no_sandbox
from traitmap.errors import DataError

SECONDS = 10.0
MEMORY_MB = 256
_TESTS = ("test_list", "tests", "test")
_SETUP = ("test_setup_code", "setup")
_FENCED = re.compile(r"```[\w+-]*[ \t]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)


def passes(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """``process_results`` of an lm-eval task: 1 where the answer's program passes its row's tests, else 0.

    doc: a row with tests in ``test_list`` (or ``tests``, ``test``): statements that raise where the program
        is wrong; and what they need in ``test_setup_code`` (or ``setup``), where they need anything.
    results: the generated answer; its program is its first fenced block, or all of it.
    An answer without a program has failed; so has one that is still running after ``SECONDS``. DataError
    where the sandbox refuses: then nothing is known of the answer, and its cell has no value.
    """
    program = program_in(results[0])
    if not program.strip():
        return {"passed": 0.0}
    tests = next((doc[column] for column in _TESTS if doc.get(column)), None)
    if tests is None:
        raise DataError(f"a row has no tests; they are looked for in the columns {', '.join(_TESTS)}")
    setup = str(next((doc[column] for column in _SETUP if doc.get(column)), ""))
    lines = [tests] if isinstance(tests, str) else [str(test) for test in tests]
    result = run_code("\n".join([program, setup, *lines]), seconds=SECONDS, memory_mb=MEMORY_MB)
    if result.status == "refused":
        raise DataError(f"the sandbox cannot run programs here: {result.reason}")
    return {"passed": float(result.status == "passed")}


def program_in(text: str) -> str:
    """The program in a generated answer: its first fenced block, or, without one, the whole text."""
    block = _FENCED.search(text)
    return block[1] if block else text


def executes_code(metadata: Any) -> bool:
    """Whether a task's metadata say that scoring it runs programs."""
    return isinstance(metadata, Mapping) and bool(metadata.get("executes_code"))


def executes_unsafely(config: Mapping[str, Any]) -> bool:
    """Whether a task's configuration runs programs by lm-eval's own means, outside any sandbox."""
    entries = config.get("metric_list") or []
    metrics = [entry.get("metric") for entry in entries if isinstance(entry, Mapping)]
    return bool(config.get("unsafe_code")) or any(str(metric).endswith("code_eval") for metric in metrics)


def why_not_executed(metadata: Any, allow_code: bool) -> str:
    """Why answers to a task are not judged in this study on this machine; empty where they are.

    metadata: the task's; allow_code: the study's. The sandbox is tried once for each process.
    """
    if not executes_code(metadata):
        return ""
    if not allow_code:
        return (
            "its answers are programs, which are run to be judged; write `allow_code: true` into the study "
            "to run them in the sandbox"
        )
    reason = why_no_sandbox()
    if reason is None:
        return ""
    return (
        f"its answers are programs, and this machine cannot shut them in ({reason}); or leave this target out"
    )


def conditions() -> dict[str, Any]:
    """Limits under which programs are judged, for the record."""
    return {"seconds": SECONDS, "memory_mb": MEMORY_MB}
