"""Choose steps and learning rate of each source of the embedded study, by rows that no source trains on.

    python benchmarks/mini_sweep.py [SOURCE ...]   about eight minutes on one core; other sources stay

For each source that has rows of its own, one adapter is trained for each of SETTINGS and asked the validation
rows of its own task; no test row is read. The rule is that of examples/real/sweep.py: what has collapsed onto
one answer is out, the best of the others is found, and the first in order within one standard error
of it (items paired) is chosen; the list rises in steps, then in rates. What was found goes to
benchmarks/results/mini-sweep.json.
"""

from __future__ import annotations

import argparse
import json
import runpy
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from record import conditions, save

import traitmap as tm

HERE = Path(__file__).parent
RULE = runpy.run_path(str(HERE.parent / "examples" / "real" / "sweep.py"))
SETTINGS = {f"{steps} at {rate:g}": (steps, rate) for steps in (60, 120, 240) for rate in (1e-3, 2e-3)}
ROWS = 100
RESULTS = HERE / "results" / "mini-sweep.json"
TASKS = Path(str(files("traitmap.data") / "tasks"))


def validation_task(name: str, folder: Path) -> Path:
    """The task file of a target whose items are the validation rows."""
    text = (TASKS / f"{name}.yaml").read_text(encoding="utf-8")
    (folder / "mini_rows.py").write_text((TASKS / "mini_rows.py").read_text(encoding="utf-8"))
    place = folder / f"{name}_validation.yaml"
    text = text.replace("test_split: test", "test_split: validation")
    place.write_text(text.replace(f"task: {name}\n", f"task: {name}_validation\n"), encoding="utf-8")
    return place


def sweep(study: tm.Study, source: Any, folder: Path) -> dict[str, Any]:
    """One source in every setting, asked the validation rows of its own task."""
    target = next(target for target in study.targets if target.name == source.name)
    tried = tuple(
        source.model_copy(update={"name": name, "training": {"max_steps": steps, "learning_rate": rate}})
        for name, (steps, rate) in SETTINGS.items()
    )
    bits = f"{source.task}_bits"  # tells more of few rows than written answers that are mostly wrong
    task = bits if (TASKS / f"{bits}.yaml").exists() else source.task
    asked = target.model_copy(update={"task": str(validation_task(task, folder)), "limit": ROWS})
    changes = {"name": f"sweep-{source.name}", "sources": tried, "targets": (asked,), "allow_code": True}
    run = tm.run(study.model_copy(update=changes), output=folder / "runs")
    rows = RULE["outcomes"](run)
    golds = tm.query(run, f"SELECT gold FROM outcomes WHERE source = '{RULE['BASE']}'")["gold"]
    majority = float(golds.value_counts(normalize=True).iloc[0])
    settings = {name: rows[name] for name in SETTINGS}
    return {
        "base": float(rows[RULE["BASE"]][0].mean()),
        "majority": majority,
        "settings": RULE["table"](settings),
        **RULE["choose"](settings, majority),
    }


def main() -> None:
    """Sweep the sources, print a line of each and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("only", nargs="*", metavar="SOURCE")
    only = parser.parse_args().only
    study = tm.load_study(Path(str(files("traitmap.mini"))) / "study.yaml")
    own = [source for source in study.sources if source.task]
    with TemporaryDirectory(prefix="traitmap-sweep-") as place:
        for source in own:
            if not only or source.name in only:
                found = sweep(study, source, Path(place))
                known = json.loads(RESULTS.read_text())["sources"] if RESULTS.exists() else {}
                known[source.name] = found
                kept = {one.name: known[one.name] for one in own if one.name in known}
                save(RESULTS, {**conditions(), "sources": kept})
                print(source.name, json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
