"""Adapters of every kind that PEFT writes: the same logits as PEFT's own, and the base whole afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from traitmap.data.records import Request
from traitmap.engine.forward_paths import find_forward_paths
from traitmap.engine.local import LocalEngine
from traitmap.errors import ModelError
from traitmap.study.settings import Model

LINEAR = ["q_proj", "v_proj", "down_proj"]
KINDS = {
    "rank and alpha patterns": lambda: peft.LoraConfig(
        r=4, target_modules=LINEAR, rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 32},
        task_type="CAUSAL_LM",
    ),
    "rslora with dropout": lambda: peft.LoraConfig(
        r=4, target_modules=LINEAR, use_rslora=True, lora_dropout=0.5, task_type="CAUSAL_LM"
    ),
    "dora": lambda: peft.LoraConfig(r=4, target_modules=LINEAR, use_dora=True, task_type="CAUSAL_LM"),
    "bias": lambda: peft.LoraConfig(r=4, target_modules=LINEAR, bias="all", task_type="CAUSAL_LM"),
    "modules to save": lambda: peft.LoraConfig(
        r=4, target_modules=LINEAR, modules_to_save=["lm_head"], task_type="CAUSAL_LM"
    ),
    "tokens to train": lambda: peft.LoraConfig(
        r=4, target_modules=LINEAR, trainable_token_indices=[5, 6], task_type="CAUSAL_LM"
    ),
    "an alpha pattern that is a regular expression": lambda: peft.LoraConfig(
        r=4, target_modules=LINEAR, alpha_pattern={r".*\.layers\.1\..*(q_proj|v_proj)": 64},
        task_type="CAUSAL_LM",
    ),
    "the first of two patterns": lambda: peft.LoraConfig(
        r=4, target_modules=LINEAR, alpha_pattern={r"layers\.0\..*": 2, "q_proj": 64},
        task_type="CAUSAL_LM",
    ),
    "a rank pattern that is a regular expression": lambda: peft.LoraConfig(
        r=4, target_modules=LINEAR, rank_pattern={r"^model\.layers\.\d\.mlp\..*": 2},
        alpha_pattern={"self_attn.(q|v)_proj": 3}, task_type="CAUSAL_LM",
    ),
    **{
        start: lambda start=start: peft.LoraConfig(
            r=4, target_modules=LINEAR, init_lora_weights=start, task_type="CAUSAL_LM"
        )
        for start in ("pissa", "pissa_niter_4", "olora", "orthogonal", "mica", "gaussian", "eva")
    },
    "the head": lambda: peft.LoraConfig(r=4, target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM"),
    "the embedding": lambda: peft.LoraConfig(
        r=4, target_modules=["q_proj", "embed_tokens"], task_type="CAUSAL_LM"
    ),
    "the embedding and the head": lambda: peft.LoraConfig(
        r=4, target_modules=["embed_tokens", "lm_head"], task_type="CAUSAL_LM"
    ),
    "ia3": lambda: peft.IA3Config(
        target_modules=LINEAR, feedforward_modules=["down_proj"], task_type="CAUSAL_LM"
    ),
    "loha": lambda: peft.LoHaConfig(r=4, target_modules=LINEAR, task_type="CAUSAL_LM"),
    "oft": lambda: peft.OFTConfig(oft_block_size=4, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    "layer norms": lambda: peft.LNTuningConfig(task_type="CAUSAL_LM", target_modules=["input_layernorm"]),
    "prompt tuning": lambda: peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    "prefix tuning": lambda: peft.PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
}  # fmt: skip
TEXTS = [
    ("the quick brown fox", " jumps over"),
    ("Review: great phone. Sentiment:", " positive"),
    ("a b", " c"),
]


def made(kind: str, checkpoint: Path, folder: Path) -> Path:
    """An adapter of a kind with weights that matter, as PEFT saves it."""
    torch.manual_seed(1)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(checkpoint), KINDS[kind]())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * (0.02 if "norm" in name else 0.2))
    model.save_pretrained(folder)
    return folder


def requests() -> list[Request]:
    return [Request("loglikelihood", context, answer, item=i) for i, (context, answer) in enumerate(TEXTS)]


def expected(engine: LocalEngine, checkpoint: Path, adapter: Path | None) -> list[float]:
    """Log-likelihoods by PEFT itself, one text at a time."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    if adapter is not None:
        torch.manual_seed(0)  # for the kinds that PEFT starts with random numbers
        model = peft.PeftModel.from_pretrained(model, adapter)
    model.eval()
    found = []
    for request in requests():
        context, answer = engine.encoder.continuation(request)
        ids = torch.tensor([context + answer])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, -ids.shape[1] :].log_softmax(-1)
        found.append(sum(logits[len(context) + i - 1, token].item() for i, token in enumerate(answer)))
    return found


@pytest.fixture(scope="module")
def engine(checkpoints: dict[str, Path]) -> LocalEngine:
    return LocalEngine.open(Model(path=str(checkpoints["llama"]), dtype="float32"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_log_likelihoods_as_peft(
    kind: str, engine: LocalEngine, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    adapter = made(kind, checkpoints["llama"], tmp_path / "adapter")
    base = [answer.logprob for answer in engine.answer(requests())]
    found = [answer.logprob for answer in engine.answer(requests(), adapter)]
    assert found == pytest.approx(expected(engine, checkpoints["llama"], adapter), abs=1e-4)
    assert found != pytest.approx(base, abs=1e-3), "the adapter has no effect, so this proves nothing"
    again = [answer.logprob for answer in engine.answer(requests())]
    assert again == base, "the base is not what it was"


@pytest.mark.parametrize("kind", ["dora", "modules to save", "prompt tuning"])
def test_the_same_texts_as_peft(
    kind: str, engine: LocalEngine, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    adapter = made(kind, checkpoints["llama"], tmp_path / "adapter")
    asked = [
        Request("generate_until", context, generation={"until": [], "max_gen_toks": 6}, item=i)
        for i, (context, _) in enumerate(TEXTS)
    ]
    found = [answer.text for answer in engine.answer(asked, adapter)]
    model = AutoModelForCausalLM.from_pretrained(checkpoints["llama"])
    model = peft.PeftModel.from_pretrained(model, adapter).eval()
    for text, (context, _) in zip(found, TEXTS, strict=True):
        ids = torch.tensor([engine.encoder.encode(context)])
        written = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False
        )[0, ids.shape[1] :]
        assert text == engine.encoder.tokenizer.decode(written, skip_special_tokens=True)


def test_an_adapter_of_another_base_is_told_by_its_shapes(
    engine: LocalEngine, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    adapter = made("dora", checkpoints["llama"], tmp_path / "adapter")
    from transformers import LlamaConfig

    torch.manual_seed(0)
    other = LlamaConfig(vocab_size=384, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
                        num_attention_heads=2, bos_token_id=0, eos_token_id=1)  # fmt: skip
    AutoModelForCausalLM.from_config(other).save_pretrained(tmp_path / "other")
    engine.encoder.tokenizer.save_pretrained(tmp_path / "other")
    small = LocalEngine.open(Model(path=str(tmp_path / "other"), dtype="float32"))
    before = [answer.logprob for answer in small.answer(requests())]
    with pytest.raises(ModelError, match=r"cannot put this .*LORA adapter"):
        small.answer(requests(), adapter)
    assert [answer.logprob for answer in small.answer(requests())] == before


def test_a_grown_vocabulary_is_named(
    engine: LocalEngine, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoints["llama"])
    have = model.config.vocab_size
    model.resize_token_embeddings(have + 3)
    config = peft.LoraConfig(
        r=4, target_modules=LINEAR, modules_to_save=["embed_tokens", "lm_head"], task_type="CAUSAL_LM"
    )
    peft.get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    before = [answer.logprob for answer in engine.answer(requests())]
    with pytest.raises(ModelError, match=f"has {have + 3} rows, the base's has {have}.*size mismatch"):
        engine.answer(requests(), tmp_path / "adapter")
    assert [answer.logprob for answer in engine.answer(requests())] == before


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"init_lora_weights": "corda"}, "init_lora_weights 'corda' changed the weights of the base"),
        ({"init_lora_weights": "lora_ga"}, "init_lora_weights 'lora_ga' changed the weights of the base"),
        ({"use_something_new": True}, "use_something_new: PEFT .* does not know this"),
        ({"r": 8}, "tensors have rank 4, its adapter_config.json says 8"),
    ],
)
def test_what_peft_cannot_make_again_is_refused_by_name(
    change: dict[str, object], word: str, engine: LocalEngine, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    adapter = made("rslora with dropout", checkpoints["llama"], tmp_path / "adapter")
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(ModelError, match=word):
        engine.answer(requests(), adapter)


def test_a_layer_that_is_no_linear_is_computed_by_peft(engine: LocalEngine, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=384, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0,
                        eos_token_id=1, initializer_range=0.2)  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "gpt2")
    engine.encoder.tokenizer.save_pretrained(tmp_path / "gpt2")
    small = LocalEngine.open(Model(path=str(tmp_path / "gpt2"), dtype="float32"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "gpt2")
    model = peft.get_peft_model(
        model, peft.LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(tmp_path / "adapter")
    found = [answer.logprob for answer in small.answer(requests(), tmp_path / "adapter")]
    assert found == pytest.approx(expected(small, tmp_path / "gpt2", tmp_path / "adapter"), abs=1e-4)
    assert found != pytest.approx([answer.logprob for answer in small.answer(requests())], abs=1e-3)


@pytest.mark.shared
def test_a_real_adapter_directory_is_read(shared: Path) -> None:
    """The fixture names a base that is not laid out, so its files are all that can be looked at."""
    from traitmap.data.adapters import adapter_problem, adapter_warnings

    (folder,) = (shared / "fixtures").glob("peft_*")
    assert adapter_problem(folder) is None
    assert any("as its base" in warning for warning in adapter_warnings(folder, "another/model"))


def test_what_is_right_is_tried_once_for_each_adapter(checkpoints, tmp_path: Path) -> None:
    tried = list[int]()
    base = LocalEngine.open(Model(path=str(checkpoints["llama"]), device="cpu")).base
    engine = LocalEngine(base, find_paths=lambda model: tried.append(1) or find_forward_paths(model))
    dora, other = (made(kind, checkpoints["llama"], tmp_path / kind) for kind in ("dora", "loha"))
    first = [engine.answer(requests(), dora) for _ in range(3)]
    assert len(tried) == 1
    assert first[0] == first[1] == first[2]
    assert engine.answer(requests(), other) != first[0]
    assert len(tried) == 2
    assert engine.answer(requests(), dora) == first[0]
    assert len(tried) == 3
