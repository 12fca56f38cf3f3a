"""Ray on this machine listens to this machine alone: without an address, nobody else can reach it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from traitmap.errors import RunError
from traitmap.runs.cluster import engine as session

SOURCE = Path(session.__file__).parents[2]


class Ray:
    """What the check looks at: the addresses of the nodes, and the end."""

    def __init__(self, *addresses: str) -> None:
        self.addresses, self.ended = addresses, False

    def nodes(self) -> list[dict[str, str]]:
        return [{"NodeManagerAddress": address} for address in self.addresses]

    def shutdown(self) -> None:
        self.ended = True


def test_an_address_that_others_can_reach_ends_it() -> None:
    for addresses in (("10.0.0.5",), ("127.0.0.1", "192.168.1.2"), ("0.0.0.0",), ("2001:db8::1",)):
        ray = Ray(*addresses)
        with pytest.raises(RunError, match="where others can reach it"):
            session._only_here(ray)
        assert ray.ended
    ray = Ray("127.0.0.1", "::1")
    session._only_here(ray)
    assert not ray.ended


def test_ray_is_begun_in_one_place_without_a_dashboard_and_then_looked_at() -> None:
    begun = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "ray.init":
                begun.append((path.name, {one.arg: ast.unparse(one.value) for one in node.keywords}))
    assert {name for name, _ in begun} == {"engine.py"}
    (own,) = [given for _, given in begun if given.get("address") == "'local'"]
    assert own["include_dashboard"] == "False"
    text = Path(session.__file__).read_text(encoding="utf-8")
    assert text.index("_only_here(ray)") > text.index('address="local"')
