"""The bundled base on two nodes and on one machine: the same adapters and cells, to the last bit."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cluster_engines import results

import traitmap as tm
from traitmap.runs.store import open_store
from traitmap.study.load import load_study
from traitmap.study.settings import Study, Target

pytestmark = pytest.mark.cluster

LISTENING = """
import os, psutil
from traitmap.runs.cluster.engine import ray_session
with ray_session(cpus=1) as ray:
    assert ray.get(ray.remote(lambda: 1).remote()) == 1
    here = psutil.Process().children(recursive=True) + [psutil.Process()]
    sockets = [one for process in here for one in process.net_connections("inet")]
    print(*{one.laddr.ip for one in sockets if one.status == psutil.CONN_LISTEN})
"""


def small_mini(output: Path) -> Study:
    """Two sources and three targets of the embedded study: choices, and answers that are generated."""
    import traitmap.mini

    whole = load_study(str(Path(traitmap.mini.__file__).with_name("study.yaml")))
    names = ("reviews", "arithmetic", "inference")
    targets = [Target(name=name, task=f"mini_{name}") for name in names]
    return whole.model_copy(
        update={
            "sources": tuple(one for one in whole.sources if one.name in names[:2]),
            "targets": tuple(targets),
            "training": whole.training.model_copy(update={"max_steps": 3}),
            "limit": 12,
            "output": str(output),
        }
    )


def test_two_nodes_give_the_bits_of_one_machine(cluster: Any, tmp_path: Path) -> None:
    alone = tm.run(small_mini(tmp_path / "alone"))
    threads = torch.get_num_threads()
    many = tm.run(
        small_mini(tmp_path / "many"), executor="ray", address=cluster.address, threads=threads, workers=2
    )
    assert many.status().complete
    here, there = results(open_store(alone.folder)), results(open_store(many.folder))
    assert len(here) == 2 * 2 + 3 * 3
    assert here == there
    one, two = alone.matrix(), many.matrix()
    assert np.isfinite(one.values).all()
    assert np.array_equal(one.values, two.values)


def test_ray_on_this_machine_listens_to_nobody_else() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    asked = [sys.executable, "-c", LISTENING]
    found = subprocess.run(asked, capture_output=True, text=True, check=True, env=environment)
    addresses = {one.removeprefix("::ffff:") for one in found.stdout.split()}
    assert addresses
    assert addresses <= {"127.0.0.1", "::1"}
