"""A server's answers are the local engine's, whatever goes wrong between; against a real server process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

import traitmap as tm
from traitmap.data.records import Request, ServedAdapter
from traitmap.engine.contract import TrainingJob
from traitmap.engine.endpoint.engine import EndpointEngine
from traitmap.engine.local import LocalEngine
from traitmap.engine.open import open_engine, open_engine_if_present
from traitmap.errors import ModelError
from traitmap.runs.cells import read_outcomes
from traitmap.runs.ledger import read_ledger
from traitmap.runs.store import open_store
from traitmap.study.settings import BASELINE, Endpoint, Lora, Model, Study, Training

KEY = "sk-never-to-be-written"
TARGETS = ("mini_stars", "mini_arithmetic")
CONTEXTS = (
    "great phone, bad battery",
    "Question: 12 + 30 =  ",
    "die Größe ist naïve 🙂",
    "a b c d e f " * 30,
)
CHOICES = (" positive", " negative", " 42", "x y")
TIRED = {2: "slow", 5: "busy", 6: "broken", 9: "cut", 12: "half", 15: "reset", 16: "reset", 40: "broken"}


class Server:
    """A server process that can be told to fail, killed and started again."""

    def __init__(self, folder: Path, adapters: dict[str, Path]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log, self.plan = folder / "calls.jsonl", folder / "faults.json"
        self.adapters = adapters
        self.process: subprocess.Popen[str] | None = None
        self.fail({})

    def start(self) -> None:
        base = Path(tm.__file__).parent / "mini" / "base"
        named = [word for name, path in self.adapters.items() for word in ("--adapter", f"{name}={path}")]
        command = [sys.executable, str(Path(__file__).with_name("served.py")), str(base), "--name", "mini"]
        command += ["--port", str(self.port), "--log", str(self.log), "--faults", str(self.plan), *named]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "SERVED_KEY": KEY}
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=quiet, text=True, env=environment
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def ensure(self) -> None:
        if self.process is None or self.process.poll() is not None:
            self.start()

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()

    def fail(self, plan: dict[int | str, str]) -> None:
        """Faults by the number of a request counted from now."""
        done = len(self.calls())
        numbered = {str(at + done) if isinstance(at, int) else at: fault for at, fault in plan.items()}
        self.plan.write_text(json.dumps(numbered), encoding="utf-8")

    def calls(self) -> list[tuple[str, str]]:
        """Model and prompt of every completions request so far."""
        if not self.log.exists():
            return []
        lines = [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]
        return [(line["model"], json.dumps(line["prompt"])) for line in lines]

    def model(self, **changes: object) -> Model:
        settings = {"url": f"http://127.0.0.1:{self.port}/v1", "api_key_env": "SERVED_KEY", "timeout": 20}
        return Model(path="mini", endpoint=Endpoint(**{**settings, **changes}))


def study(name: str, folder: Path, model: Model, sources: list[dict]) -> Study:
    targets = [{"name": task, "task": task} for task in TARGETS]
    training = {"learning_rate": 0.005, "warmup_steps": 2, "batch_size": 8, "max_steps": 12}
    return Study.model_validate(
        {
            "name": name,
            "model": model,
            "lora": {"r": 4, "lora_alpha": 8},
            "training": training,
            "limit": 12,
            "sources": sources,
            "targets": targets,
            "output": str(folder),
        }
    )


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LocalEngine, dict[str, Path]]:
    """A run on this machine, its engine, and its two adapters."""
    folder = tmp_path_factory.mktemp("local")
    model = Model(path="builtin:mini", device="cpu", dtype="float32")
    engine = LocalEngine.open(model)
    sources = [{"name": "stars", "task": "mini_stars", "limit": 100}]
    sources += [{"name": "sums", "task": "mini_arithmetic", "limit": 100}]
    run = tm.run(study("local", folder, model, sources), engine=engine)
    store = open_store(run.folder)
    keys = {entry.source: entry.key for entry in read_ledger(store).adapters}
    return run.folder, engine, {name: store.adapter(str(key)) for name, key in keys.items()}


@pytest.fixture(scope="module")
def process(local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    one = Server(tmp_path_factory.mktemp("server"), local[2])
    yield one
    one.kill()


@pytest.fixture
def server(process: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("SERVED_KEY", KEY)
    process.fail({})
    process.ensure()
    return process


def scoring() -> list[Request]:
    return [
        Request("loglikelihood", context, choice, item=item)
        for item, context in enumerate(CONTEXTS)
        for choice in CHOICES
    ]


def writing(**generation: object) -> list[Request]:
    settings = {"until": ["\n", "e "], "max_gen_toks": 12, "do_sample": False, **generation}
    return [Request("generate_until", text, generation=settings, seed=i) for i, text in enumerate(CONTEXTS)]


def served() -> list[dict]:
    return [{"name": source, "served_as": source} for source in ("stars", "sums")]


def logprobs(folder: Path) -> dict[tuple, tuple]:
    """Log-probabilities or text of every item of every cell of a run."""
    store = open_store(folder)
    found = {}
    for cell in read_ledger(store).cells:
        if cell.status == "done":
            for one in read_outcomes(store.cell(str(cell.key))):
                found[cell.source, cell.target, one.item] = one.choice_logprobs or one.text
    return found


def same_cells(folder: Path, other: Path) -> None:
    one, two = tm.open_run(folder).matrix(), tm.open_run(other).matrix()
    assert (one.sources, one.targets) == (two.sources, two.targets)
    assert np.array_equal(one.values, two.values, equal_nan=True)
    left, right = logprobs(folder), logprobs(other)
    assert left.keys() == right.keys()
    for place, value in left.items():
        if isinstance(value, str):
            assert right[place] == value, place
        else:
            assert np.allclose(right[place], value, atol=1e-4), place


@pytest.mark.parametrize("tokenizer", [None, "builtin:mini"])
@pytest.mark.parametrize("name", [None, "stars"])
def test_answers_equal_the_local_engines(local, server: Server, tokenizer, name) -> None:
    engine = EndpointEngine.open(server.model(tokenizer=tokenizer))
    requests = scoring() if tokenizer else [one for one in scoring() if "🙂" not in one.context]
    expected = local[1].answer(requests + writing(), local[2][name] if name else None)
    found = engine.answer(requests + writing(), ServedAdapter(name) if name else None)
    assert np.allclose(
        [one.logprob for one in found], [one.logprob for one in expected], atol=1e-4, equal_nan=True
    )
    assert [one.is_greedy for one in found] == [one.is_greedy for one in expected]
    assert [one.text for one in found] == [one.text for one in expected]
    assert [one.tokens for one in found] == [one.tokens for one in expected]
    assert [one.stopped for one in found] == [one.stopped for one in expected]


def test_the_tokenizer_of_a_served_base_may_lie_among_the_copies(local, server: Server, tmp_path) -> None:
    """A hub id of which no copy is there cannot be had; with one the answers are the local engine's."""
    base = Path(tm.__file__).parent / "mini" / "base"
    (tmp_path / "org__served").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, tmp_path / "org__served")
    model = server.model(tokenizer="org/served")
    for engine in (
        open_engine(model, copies=tmp_path),
        open_engine_if_present(model, tmp_path, copies=tmp_path)[0],
    ):
        found, expected = engine.answer(scoring()[:4]), local[1].answer(scoring()[:4])
        assert np.allclose([one.logprob for one in found], [one.logprob for one in expected], rtol=1e-5)
    with pytest.raises(ModelError, match="neither a local folder nor to be had from the hub"):
        open_engine(server.model(tokenizer="org/absent"), copies=tmp_path)


def test_whole_texts_and_long_contexts_equal_the_local_engines(local, server: Server) -> None:
    engine = EndpointEngine.open(server.model(tokenizer="builtin:mini"))
    whole = [Request("loglikelihood_rolling", text) for text in (CONTEXTS[0], CONTEXTS[3])]
    expected, found = local[1].answer(whole), engine.answer(whole)
    assert np.allclose([one.logprob for one in found], [one.logprob for one in expected], rtol=1e-5)
    assert [one.tokens for one in found] == [one.tokens for one in expected]
    long = engine.answer([Request("loglikelihood", "word " * 3000, " positive")])
    assert np.isfinite(long[0].logprob)
    with pytest.raises(ModelError, match="needs a start token"):
        EndpointEngine.open(server.model()).answer(whole)


def test_a_study_gives_the_same_matrix_under_faults(local, server: Server, tmp_path: Path) -> None:
    server.fail({**TIRED, 60: "broken", 61: "broken", 62: "busy"})
    one = study("served", tmp_path, server.model(timeout=1.5), served())
    run = tm.run(one)
    assert run.status().cells.failed == 0
    same_cells(local[0], run.folder)


@pytest.mark.parametrize("kind", ["vllm", "sglang", "lorax"])
def test_each_kind_of_server_is_told_the_adapter_its_own_way(local, server: Server, kind: str) -> None:
    engine = EndpointEngine.open(server.model(server=kind))
    asked, before = scoring()[:4], len(server.calls())
    expected = [one.logprob for one in local[1].answer(asked, local[2]["sums"])]
    for adapter in (ServedAdapter("sums"), local[2]["sums"]):
        if (kind, adapter) == ("lorax", ServedAdapter("sums")):
            continue  # an id on the hub
        found = [one.logprob for one in engine.answer(asked, adapter)]
        assert np.allclose(found, expected, atol=1e-4)
    names = {model for model, _ in server.calls()[before:]}
    told = {"sglang": {"mini"}, "lorax": {str(local[2]["sums"])}}
    assert names == told[kind] if kind in told else len(names - {"sums"}) == 1


def test_adapters_from_files_are_loaded_and_survive_a_restart(local, server: Server) -> None:
    """The adapters' own names are not used: the files are loaded under new ones, and again after kill -9."""
    server.fail({8: "die"})
    engine = EndpointEngine.open(server.model(server="vllm", retries=8, timeout=5))
    asked = [one for one in scoring() if "🙂" not in one.context]
    assert server.process is not None
    watch = threading.Thread(target=lambda process: (process.wait(), server.start()), args=(server.process,))
    watch.start()
    found = engine.answer(asked, local[2]["sums"])
    watch.join()
    expected = local[1].answer(asked, local[2]["sums"])
    assert np.allclose([one.logprob for one in found], [one.logprob for one in expected], atol=1e-4)
    names = Counter(model for model, _ in server.calls()[-len(asked) :])
    assert all(name.startswith("traitmap-") for name in names)
    listed = engine.transport.get("models")["data"]
    assert {one["id"] for one in listed} == {"mini", "stars", "sums"}  # and unloaded in the end


def test_a_killed_server_loses_nothing_finished(local, server: Server, tmp_path: Path) -> None:
    asked = len(server.calls())
    server.fail({90: "die"})
    one = study("killed", tmp_path, server.model(retries=1, timeout=5), served())
    run = tm.run(one)
    ledger = read_ledger(open_store(run.folder))
    done = {cell for cell in ledger.cells if cell.status == "done"}
    failed = [cell for cell in ledger.cells if cell.status == "failed"]
    assert done
    assert failed
    assert all("gave no answer in" in cell.reason for cell in failed)
    before = len(server.calls())
    assert before - asked >= 90
    server.fail({})
    server.ensure()
    run = tm.run(one)
    assert run.status().cells.failed == 0
    same_cells(local[0], run.folder)
    unfinished = {cell.source for cell in failed}
    whole = {
        "mini" if cell.source == BASELINE else cell.source for cell in done if cell.source not in unfinished
    }
    assert whole
    assert not whole & {model for model, _ in server.calls()[before:]}
    count = len(server.calls())
    tm.run(one)
    assert len(server.calls()) == count  # nothing is asked a third time
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_what_a_server_will_not_do_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = EndpointEngine.open(server.model(retries=0))
    with pytest.raises(ModelError, match="serves no model of this name; it serves mini, stars, sums"):
        engine.answer(scoring()[:1], ServedAdapter("absent"))
    with pytest.raises(ModelError, match="serves no model of this name"):
        EndpointEngine.open(server.model().model_copy(update={"path": "absent"}))
    with pytest.raises(ModelError, match="a server cannot train"):
        engine.train([TrainingJob("a", 0, (), Lora(), Training())], [Path()])
    with pytest.raises(ModelError, match="loads no adapters from files"):
        engine.answer(scoring()[:1], Path("adapter"))
    server.fail({"*": "blind"})
    with pytest.raises(ModelError, match="gives no log-probabilities of the prompt"):
        engine.answer(scoring())
    server.fail({"*": "broken"})
    with pytest.raises(ModelError, match=r"in 1 try; at the last one it answered 500: .*out of memory"):
        engine.answer(scoring())
    monkeypatch.setenv("SERVED_KEY", "sk-another")
    with pytest.raises(ModelError, match="401") as told:
        EndpointEngine.open(server.model()).answer(scoring())
    assert "sk-another" not in str(told.value)
    assert "***" in str(told.value)
    monkeypatch.delenv("SERVED_KEY")
    with pytest.raises(ModelError, match="SERVED_KEY is not set"):
        EndpointEngine.open(server.model())


def test_the_key_and_the_address_take_no_part_in_what_is_known(server: Server) -> None:
    one = EndpointEngine.open(server.model())
    other = EndpointEngine.open(server.model(url=f"http://localhost:{server.port}/v1", concurrency=2))
    assert one.base_digest == other.base_digest
    assert one.base_digest != EndpointEngine.open(server.model(tokenizer="builtin:mini")).base_digest
    assert KEY not in json.dumps(dict(one.conditions))
    assert "not digested" in one.conditions["weights"]


def test_a_server_measures_perplexity_or_says_in_one_line_why_not(
    server: Server, local, tmp_path: Path
) -> None:
    place = tmp_path / "study.yaml"

    def perplexity(**changes: object) -> dict:
        model = server.model(**changes).model_dump(exclude_defaults=True)
        lists = {"sources": served(), "targets": ["mini_reviews"], "limit": 4}
        place.write_text(yaml.safe_dump({"name": "served", "model": model, **lists}), encoding="utf-8")
        return tm.profile(place, perplexity=True, sample=2).perplexity

    found = perplexity(tokenizer="builtin:mini")["mini_reviews"]
    place.write_text(
        yaml.safe_dump(
            {
                "name": "here",
                "model": {"path": "builtin:mini", "device": "cpu", "dtype": "float32"},
                "sources": [{"name": "stars", "task": "mini_stars", "limit": 100}],
                "targets": ["mini_reviews"],
                "limit": 4,
            }
        ),
        encoding="utf-8",
    )
    own = tm.profile(place, perplexity=True, sample=2).perplexity["mini_reviews"]
    assert found.text.nats_per_token == pytest.approx(own.text.nats_per_token, abs=1e-4)
    with pytest.raises(ModelError, match=r"^a text's perplexity needs .*; give model.endpoint.tokenizer.$"):
        perplexity()
    server.fail({"*": "blind"})
    with pytest.raises(ModelError, match=r"^the server gives no log-probabilities of the prompt"):
        perplexity(tokenizer="builtin:mini")


def test_a_conversation_is_rendered_by_the_server_or_by_the_tokenizer(server: Server) -> None:
    engine = EndpointEngine.open(server.model())
    text = engine.render_chat([{"role": "user", "content": "hello"}], add_generation_prompt=True)
    generation = {"until": ["\n"], "max_gen_toks": 5}
    chatted = engine.answer([Request("generate_until", text, generation=generation)])
    plain = engine.answer([Request("generate_until", "user: hello\nassistant:", generation=generation)])
    assert chatted == plain
    with pytest.raises(ModelError, match="choices behind a conversation"):
        engine.answer([Request("loglikelihood", text, " a")])
    with pytest.raises(ModelError, match="with text behind it"):
        engine.answer([Request("generate_until", text + "Sure", generation=generation)])


def test_sampling_depends_on_the_requests_own_seed(server: Server) -> None:
    engine = EndpointEngine.open(server.model())
    sampled = writing(do_sample=True, temperature=1.0, until=[])
    assert engine.answer(sampled) == engine.answer(sampled)
    assert engine.answer(sampled) != engine.answer(writing(until=[]))
