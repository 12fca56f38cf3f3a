"""Merges are PEFT's own, method by method; checkpoints are trainings stopped there, at the price of one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pass_to_kill import checkpoint
from peft import PeftModel
from safetensors.numpy import load_file, save_file
from test_train import engine_for, jobs
from transformers import AutoModelForCausalLM

from traitmap.data.records import Request
from traitmap.engine.adapters import load_adapter
from traitmap.engine.contract import MergeJob, TrainingJob, checkpoint_folder
from traitmap.engine.local import LocalEngine
from traitmap.errors import ModelError
from traitmap.progress import Progress
from traitmap.runs.units import merge
from traitmap.study.derived import MERGE_METHODS
from traitmap.study.settings import Lora

IDS = torch.arange(24).reshape(2, 12) % 60 + 2
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def base(checkpoints: dict[str, Path]) -> Path:
    return checkpoints["llama"]


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Trained adapters: two of rank 4 (scale 2), one of rank 8, two rank-stabilised ones."""
    folder = tmp_path_factory.mktemp("adapters")
    shapes = {
        "a": Lora(r=4, lora_alpha=8),
        "b": Lora(r=4, lora_alpha=8),
        "wide": Lora(r=8, lora_alpha=4, target_modules=("q_proj", "down_proj")),
        "stable_a": Lora(r=4, lora_alpha=8, use_rslora=True),
        "stable_b": Lora(r=4, lora_alpha=8, use_rslora=True),
    }
    engine = engine_for(base)
    for number, (name, lora) in enumerate(shapes.items()):
        job = jobs(lora)[number % 3]
        fast = job.training.model_copy(update={"learning_rate": 3e-2})
        engine.train([replace(job, name=name, seed=number, training=fast)], [folder / name])
    return {name: folder / name for name in shapes}


def logits(base: Path, folder: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        return PeftModel.from_pretrained(model, folder).eval()(IDS).logits


def logits_of_peft(base: Path, folders: list[Path], weights: list[float], seed: int, **told) -> torch.Tensor:
    """PEFT on the base itself, as its documentation has it."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged = PeftModel.from_pretrained(model, folders[0], adapter_name="0")
    for number, folder in enumerate(folders[1:], start=1):
        merged.load_adapter(folder, str(number))
    torch.manual_seed(seed)
    merged.add_weighted_adapter([str(n) for n in range(len(folders))], weights, "m", **told)
    merged.set_adapter("m")
    with torch.no_grad():
        return merged.eval()(IDS).logits


def told_of(method: str) -> dict:
    settings = MERGE_METHODS[method]
    return {
        **({"density": 0.4} if settings.prunes else {}),
        **({"majority_sign_method": "frequency"} if settings.elects else {}),
    }


@pytest.mark.parametrize("method", MERGE_METHODS)
def test_a_merge_answers_as_peft_does(
    base: Path, adapters: dict[str, Path], tmp_path: Path, method: str
) -> None:
    folders, weights, told = [adapters["a"], adapters["b"]], [0.7, -0.6], told_of(method)
    engine = engine_for(base)
    before = torch.get_rng_state()
    engine.merge(MergeJob(tuple(folders), tuple(weights), method, seed=5, **told), tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    found, right = (
        logits(base, tmp_path),
        logits_of_peft(base, folders, weights, 5, combination_type=method, **told),
    )
    assert float((found - right).abs().max()) < 1e-5
    plain = logits(base, adapters["a"])
    assert float((right - plain).abs().max()) > 1e-2  # the merge is not one of its parents
    request = Request("loglikelihood", "the cat", " sat", item=0)
    assert engine.answer([request], tmp_path)[0].logprob != engine.answer([request], adapters["a"])[0].logprob


@pytest.mark.parametrize("method", [key for key, one in MERGE_METHODS.items() if one.draws])
def test_what_is_drawn_follows_the_seed(
    base: Path, adapters: dict[str, Path], tmp_path: Path, method: str
) -> None:
    engine, files = engine_for(base), []
    for number, seed in enumerate((5, 5, 6)):
        (folder := tmp_path / str(number)).mkdir()
        job = MergeJob((adapters["a"], adapters["b"]), (0.5, 0.5), method, density=0.4, seed=seed)
        engine.merge(job, folder)
        files.append((folder / WEIGHTS).read_bytes())
    assert files[0] == files[1] != files[2]


def test_the_whole_of_one_adapter_is_that_adapter_bit_for_bit(
    base: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    merged = merge(engine_for(base), "key", MergeJob((adapters["a"],), (1.0,), "linear"), tmp_path)
    for name, tensor in load_file(adapters["a"] / WEIGHTS).items():
        np.testing.assert_array_equal(load_file(tmp_path / WEIGHTS)[name], tensor)
    assert merged.report["merged"] == [merged.digest]
    right = logits_of_peft(base, [adapters["a"]], [1.0], 0, combination_type="linear")
    assert float((logits(base, tmp_path) - right).abs().max()) < 1e-5


@pytest.mark.parametrize("method", ["cat", "svd", "ties_svd"])
def test_adapters_of_unlike_rank_and_modules_keep_all_their_modules(
    base: Path, adapters: dict[str, Path], tmp_path: Path, method: str
) -> None:
    folders = [adapters["wide"], adapters["a"]]
    engine_for(base).merge(MergeJob(tuple(folders), (1.0, 1.0), method, **told_of(method)), tmp_path)
    merged = {name.rsplit(".lora_", 1)[0] for name in load_file(tmp_path / WEIGHTS)}
    assert merged == {name.rsplit(".lora_", 1)[0] for name in load_file(adapters["a"] / WEIGHTS)}
    right = logits_of_peft(base, folders, [1.0, 1.0], 0, combination_type=method, **told_of(method))
    assert float((logits(base, tmp_path) - right).abs().max()) < 1e-5


def test_a_layer_that_one_parent_alone_has_is_not_lost(
    base: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """PEFT takes the layers of the first adapter for the merge, and would leave the second one out."""
    cut = {}
    for layer in (0, 1):
        folder = tmp_path / f"layer{layer}"
        folder.mkdir()
        tensors = {
            name: t for name, t in load_file(adapters["a"] / WEIGHTS).items() if f"layers.{layer}." in name
        }
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        config = json.loads((adapters["a"] / "adapter_config.json").read_text())
        modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        config |= {"target_modules": modules, "layers_to_transform": [layer]}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        cut[layer] = folder
    (out := tmp_path / "out").mkdir()
    engine_for(base).merge(MergeJob((cut[0], cut[1]), (1.0, 1.0), "cat"), out)
    assert float((logits(base, out) - logits(base, adapters["a"])).abs().max()) < 1e-5
    theirs = logits_of_peft(base, [cut[0], cut[1]], [1.0, 1.0], 0, combination_type="cat")
    assert float((theirs - logits(base, adapters["a"])).abs().max()) > 1e-3


def test_a_merge_of_rank_stabilised_adapters_is_the_sum_of_their_updates(
    base: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """PEFT's own is sqrt(r) times too large: it keeps use_rslora and sets lora_alpha to r."""
    folder, job = tmp_path, MergeJob((adapters["stable_a"], adapters["stable_b"]), (1.0, 1.0), "cat")
    engine = engine_for(base)
    engine.merge(job, folder)
    parents = [engine_weights(engine, place) for place in job.folders]
    merged = engine_weights(engine, folder)
    for name, update in merged.items():
        np.testing.assert_allclose(update, parents[0][name] + parents[1][name], atol=1e-6)
    theirs = logits_of_peft(base, list(job.folders), [1.0, 1.0], 0, combination_type="cat")
    assert float((theirs - logits(base, folder)).abs().max()) > 1e-2


def engine_weights(engine: LocalEngine, folder: Path) -> dict[str, np.ndarray]:
    adapter = load_adapter(folder, engine.modules)
    return {name: (adapter.scale[name] * adapter.b[name] @ adapter.a[name]).numpy() for name in adapter.a}


def test_methods_that_add_entries_refuse_unlike_ranks(
    base: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"by linear .*same r"):
        engine_for(base).merge(MergeJob((adapters["a"], adapters["wide"]), (1.0, 1.0), "linear"), tmp_path)


def three_jobs() -> list[TrainingJob]:
    first, second, third = jobs(Lora(r=4, lora_alpha=8, lora_dropout=0.1))
    return [replace(first, checkpoints=(2, 5)), second, replace(third, checkpoints=(3,))]


def test_a_checkpoint_is_a_training_stopped_there(base: Path, tmp_path: Path) -> None:
    whole, steps = three_jobs(), {0: (2, 5), 2: (3,)}
    engine = engine_for(base)
    reports = engine.train(whole, [tmp_path / str(number) for number in range(3)])
    plain = [replace(job, checkpoints=()) for job in whole]
    for number, of_job in steps.items():
        for step in of_job:
            kept = checkpoint_folder(tmp_path / str(number), step)
            stopped = [replace(job, until=step) if at == number else job for at, job in enumerate(plain)]
            folders = [tmp_path / f"stopped-{number}-{step}-{at}" for at in range(3)]
            alone = engine_for(base).train(stopped, folders)[number]
            assert (kept / WEIGHTS).read_bytes() == (folders[number] / WEIGHTS).read_bytes()
            assert alone.losses == reports[number].losses[:step]
            assert reports[number].checkpoints[step] == alone.tokens
    once = engine_for(base).train(plain, [tmp_path / f"plain-{number}" for number in range(3)])
    assert [len(report.losses) for report in reports] == [len(report.losses) for report in once]
    for number in range(3):
        ends = [tmp_path / name / WEIGHTS for name in (str(number), f"plain-{number}")]
        assert ends[0].read_bytes() == ends[1].read_bytes()


def test_a_pass_that_was_killed_between_checkpoints_gives_them_all(base: Path, tmp_path: Path) -> None:
    engine_for(base).train(three_jobs(), [tmp_path / f"whole-{number}" for number in range(3)])
    told, heard = list[str](), list[Progress]()

    def stop(progress: Progress) -> None:
        heard.append(progress)
        if len(heard) == 4:
            raise KeyboardInterrupt

    folders = [tmp_path / f"again-{number}" for number in range(3)]
    with pytest.raises(KeyboardInterrupt):
        engine_for(base).train(three_jobs(), folders, stop, checkpoint(tmp_path, told))
    engine_for(base).train(three_jobs(), folders, checkpoint=checkpoint(tmp_path, told))
    assert "goes on at step 5" in told[-1]
    for number, step in ((0, 2), (0, 5), (2, 3)):
        places = [
            checkpoint_folder(tmp_path / f"{name}-{number}", step) / WEIGHTS for name in ("whole", "again")
        ]
        assert places[0].read_bytes() == places[1].read_bytes()
    for number in range(3):
        places = [tmp_path / f"{name}-{number}" / WEIGHTS for name in ("whole", "again")]
        assert places[0].read_bytes() == places[1].read_bytes()


def test_a_training_that_diverges_keeps_the_checkpoints_before(base: Path, tmp_path: Path) -> None:
    wild = three_jobs()[0]
    wild = replace(wild, training=wild.training.model_copy(update={"learning_rate": 1e30, "warmup_steps": 2}))
    report = engine_for(base).train([replace(wild, checkpoints=(1, 5))], [tmp_path / "wild"])[0]
    assert report.failure is not None
    assert list(report.checkpoints) == [1]
    assert (checkpoint_folder(tmp_path / "wild", 1) / WEIGHTS).is_file()
    assert not (tmp_path / "wild" / WEIGHTS).exists()
