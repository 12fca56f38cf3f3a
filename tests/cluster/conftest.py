"""Two machines that are one: a Ray cluster of two nodes, each with one core, on the loopback address."""

import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cluster_engines import TESTS, OrderedEngine

NODE = {"num_cpus": 1, "object_store_memory": 100_000_000}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cluster: starts a Ray cluster of two nodes on this machine")


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """These tests take a minute of processes being started, so they run when they are asked for."""
    return None if "cluster" in str(config.getoption("markexpr")) else True


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(Path(__file__).parent)])
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    made.add_node(**NODE)
    yield made
    import ray

    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("orders") / "orders.json"
    file.write_text(json.dumps({"log": str(file.with_name("log"))}))
    return file


@pytest.fixture(scope="module")
def engine(cluster: Any, orders: Path) -> Iterator[Any]:
    """Workers on the cluster, the same for all tests of a module."""
    from traitmap.runs.cluster.engine import open_cluster

    with open_cluster(partial(OrderedEngine, orders), address=cluster.address) as many:
        yield many


@pytest.fixture
def order(orders: Path, tmp_path: Path) -> Callable[..., Path]:
    """Tell the engines what to do wrong in this test; gives the file in which they log."""

    def tell(**told: Any) -> Path:
        log = tmp_path / f"log-{len(list(tmp_path.glob('log-*')))}"
        log.touch()
        orders.write_text(json.dumps({"log": str(log), **told}))
        return log

    return tell
