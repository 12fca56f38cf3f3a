"""Every architecture that people fine-tune, at a size that trains in a moment: a new one is one line.

A line says what the engine does with a base of that kind, and ``tests/architectures`` holds it to that. The
page docs/architectures.md is made of these lines (``python docs/architectures.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 384
TOKENS = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
          "initializer_range": 0.1}  # fmt: skip
WIDTHS = {"hidden_size": 32, "num_hidden_layers": 2}
# attention with as many heads for keys as for queries; with fewer; with a size of heads that is told
FULL = TOKENS | WIDTHS | {"intermediate_size": 48, "num_attention_heads": 4, "max_position_embeddings": 256}
GROUPED = FULL | {"num_key_value_heads": 2}
HEADS = GROUPED | {"head_dim": 8}
NO_BLOCK = {key: value for key, value in FULL.items() if key != "intermediate_size"}
WINDOW = {"sliding_window": 16}
MIXED = WINDOW | {"layer_types": ["sliding_attention", "full_attention"]}
GPT = TOKENS | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
ROPE = {"rope_theta": 1e4, "original_max_position_embeddings": 64, "factor": 4.0}
LLAMA3 = {"rope_parameters": ROPE | {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}}
YARN = {"rope_parameters": ROPE | {"rope_type": "yarn"}}
LONGROPE = {"original_max_position_embeddings": 32, "rope_parameters": {
    "rope_type": "longrope", "rope_theta": 1e4, "partial_rotary_factor": 1.0,
    "original_max_position_embeddings": 32, "long_factor": [1.5, 3.0, 6.0, 12.0], "short_factor": [1.0] * 4,
}}  # fmt: skip
LLAMA4 = HEADS | {"intermediate_size_mlp": 48, "attention_chunk_size": 16, "num_local_experts": 2,
                  "interleave_moe_layer_step": 1}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
SHARED_EXPERT = EXPERTS | {"shared_expert_intermediate_size": 24}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "n_group": 1,
          "topk_group": 1, "n_shared_experts": 1, "first_k_dense_replace": 1}  # fmt: skip
LATENT = {"num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": 16, "qk_nope_head_dim": 8,
          "qk_rope_head_dim": 4, "v_head_dim": 8}  # fmt: skip
DELTA = {"layer_types": ["linear_attention", "full_attention"], "linear_key_head_dim": 8,
         "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4}  # fmt: skip
STATE = TOKENS | WIDTHS | {"state_size": 8}
MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 16,
          "mamba_n_groups": 2}  # fmt: skip
ZAMBA = FULL | {"num_key_value_heads": 4, "mamba_d_state": 8, "num_hidden_layers": 4,
                "layers_block_type": ["mamba", "hybrid"] * 2}  # fmt: skip
PER_LAYER = {"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8}
GEMMA3N = HEADS | MIXED | PER_LAYER | {"laurel_rank": 4, "altup_num_inputs": 2, "num_hidden_layers": 4,
           "layer_types": MIXED["layer_types"] * 2, "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
           "num_kv_shared_layers": 2}  # fmt: skip
TOWER = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
         "image_size": 28, "patch_size": 14}  # fmt: skip
GEMMA3_IMAGES = {"vision_config": TOWER, "mm_tokens_per_image": 4, "image_token_index": 383,
                 "boi_token_index": 382, "eoi_token_index": 381}  # fmt: skip
GEMMA4_IMAGES = {"image_token_id": 383, "boi_token_id": 382, "eoi_token_id": 381, "audio_token_id": 380,
                 "boa_token_id": 379, "eoa_token_index": 378, "video_token_id": 377, "vision_config": TOWER
                 | {"head_dim": 8, "num_key_value_heads": 2, "position_embedding_size": 64}}  # fmt: skip
QWEN_TOWER = {"depth": 1, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": 32,
              "patch_size": 14, "num_position_embeddings": 16}  # fmt: skip
QWEN_IMAGES = {"image_token_id": 383, "video_token_id": 382, "vision_start_token_id": 381,
               "vision_end_token_id": 380, "vision_config": QWEN_TOWER}  # fmt: skip
OPT = TOKENS | WIDTHS | {"ffn_dim": 48, "num_attention_heads": 4, "max_position_embeddings": 256,
                         "word_embed_proj_dim": 32}  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """A kind of base, and what the engine does with it.

    models: what people know of that kind. config, settings: its class in transformers and what that is made
    with. way: how rows are computed in training and scoring, and how texts grow. peft_only: the last names of
    what PEFT's all-linear adapts and traitmap does not. refused: what the refusal says, where there is one.
    """

    models: str
    config: str
    settings: dict[str, Any] = field(hash=False)
    way: tuple[str, str] = ("stream", "continuous")
    peft_only: tuple[str, ...] = ()
    refused: str = ""


PADDED, SINGLE, ANEW = ("padded", "batch"), ("padded", "one at a time"), ("padded", "no cache")
FUSED = ("experts", "gate")  # one parameter of all experts, and the router
REFUSED = "transformers has no causal language model of the type"
CONV1D = "adapts nn.Linear only (Conv1D as in GPT-2 is not supported)"
A = Architecture
CATALOGUE: dict[str, Architecture] = {
    "llama": A("Llama 2, SmolLM2, TinyLlama, Yi", "LlamaConfig", GROUPED),
    "llama3": A("Llama 3", "LlamaConfig", GROUPED | LLAMA3),
    "llama4": A("Llama 4 (text)", "Llama4TextConfig", LLAMA4, PADDED, ("router",)),
    "llama4_images": A("Llama 4 with vision", "Llama4Config", {"text_config": LLAMA4, "vision_config": TOWER
                       | {"intermediate_size": 64, "vision_output_dim": 32, "projector_input_dim": 16,
                       "projector_output_dim": 16}}, PADDED, ("router",)),
    "mistral": A("Mistral 7B", "MistralConfig", GROUPED | WINDOW),
    "mixtral": A("Mixtral", "MixtralConfig", GROUPED | LOCAL, peft_only=FUSED),
    "ministral": A("Ministral 8B", "MinistralConfig", HEADS | MIXED),
    "ministral3": A("Ministral 3", "Ministral3Config", HEADS | {"rope_parameters":
                    YARN["rope_parameters"] | {"llama_4_scaling_beta": 0.1}}),
    "qwen2": A("Qwen 2, Qwen 2.5", "Qwen2Config", GROUPED),
    "qwen2_window": A("Qwen 2 with a window", "Qwen2Config", GROUPED | WINDOW | {"use_sliding_window": True,
                      "max_window_layers": 1}),
    "qwen2_moe": A("Qwen 1.5 MoE, Qwen 2 MoE", "Qwen2MoeConfig", GROUPED | SHARED_EXPERT),
    "qwen3": A("Qwen 3", "Qwen3Config", HEADS),
    "qwen3_moe": A("Qwen 3 MoE", "Qwen3MoeConfig", HEADS | EXPERTS, peft_only=FUSED),
    "qwen3_next": A("Qwen 3 Next", "Qwen3NextConfig", HEADS | SHARED_EXPERT | DELTA, SINGLE,
                    FUSED),
    "qwen3_5": A("Qwen 3.5", "Qwen3_5TextConfig", HEADS | DELTA, SINGLE),
    "qwen3_5_moe": A("Qwen 3.5 MoE", "Qwen3_5MoeTextConfig", HEADS | DELTA | SHARED_EXPERT, SINGLE),
    "qwen3_5_images": A("Qwen 3.5 with vision", "Qwen3_5Config", {"text_config": HEADS | DELTA} | QWEN_IMAGES,
                        SINGLE),
    "qwen2_5_vl": A("Qwen 2.5 VL", "Qwen2_5_VLConfig", {"text_config": GROUPED} | QWEN_IMAGES,
                    refused=REFUSED),
    "gemma": A("Gemma", "GemmaConfig", HEADS),
    "gemma2": A("Gemma 2", "Gemma2Config", HEADS | WINDOW, PADDED),
    "gemma3": A("Gemma 3 270M, 1B", "Gemma3TextConfig", HEADS | MIXED),
    "gemma3_images": A("Gemma 3 4B, 12B, 27B", "Gemma3Config", {"text_config": HEADS | MIXED} | GEMMA3_IMAGES,
                       peft_only=("fc1", "fc2", "k_proj", "out_proj", "q_proj", "v_proj")),
    "gemma3n": A("Gemma 3n (text)", "Gemma3nTextConfig", GEMMA3N),
    "gemma4": A("Gemma 4 (text)", "Gemma4TextConfig", HEADS | MIXED | PER_LAYER),
    "gemma4_moe": A("Gemma 4 MoE (text)", "Gemma4TextConfig", HEADS | MIXED | EXPERTS | {"top_k_experts": 2,
                    "hidden_size_per_layer_input": 0, "enable_moe_block": True}),
    "gemma4_images": A("Gemma 4", "Gemma4Config", {"text_config": HEADS | MIXED | PER_LAYER} | GEMMA4_IMAGES,
                       peft_only=("embedding_projection", "input_proj", "linear")),
    "vaultgemma": A("VaultGemma", "VaultGemmaConfig", HEADS | MIXED, PADDED),
    "recurrent_gemma": A("RecurrentGemma", "RecurrentGemmaConfig", HEADS | {"attention_window_size": 16,
                         "lru_width": 32, "block_types": ["recurrent", "attention"]}, ANEW),
    "phi": A("Phi 1, 1.5, 2", "PhiConfig", GROUPED),
    "phi3": A("Phi 3, Phi 4", "Phi3Config", GROUPED),
    "phi3_longrope": A("Phi 3.5 mini, Phi 4 mini", "Phi3Config", GROUPED | LONGROPE),
    "phimoe": A("Phi 3.5 MoE", "PhimoeConfig", GROUPED | LOCAL, peft_only=("router",)),
    "olmo": A("OLMo", "OlmoConfig", GROUPED),
    "olmo2": A("OLMo 2", "Olmo2Config", GROUPED),
    "olmo3": A("OLMo 3", "Olmo3Config", GROUPED | MIXED),
    "olmoe": A("OLMoE", "OlmoeConfig", GROUPED | EXPERTS, peft_only=FUSED),
    "olmo_hybrid": A("OLMo Hybrid", "OlmoHybridConfig", GROUPED | DELTA, SINGLE),
    "gpt2": A("GPT-2", "GPT2Config", GPT, refused=CONV1D),
    "gptj": A("GPT-J", "GPTJConfig", GPT | {"rotary_dim": 4}, PADDED),
    "codegen": A("CodeGen", "CodeGenConfig", GPT | {"rotary_dim": 4, "n_ctx": 256}, PADDED),
    "gpt_neo": A("GPT-Neo", "GPTNeoConfig", TOKENS | {"hidden_size": 32, "num_layers": 2, "num_heads": 4,
                 "window_size": 8, "attention_types": [[["global", "local"], 1]],
                 "max_position_embeddings": 256}, PADDED),
    "gpt_neox": A("GPT-NeoX, Pythia", "GPTNeoXConfig", FULL),
    "gpt_neox_japanese": A("GPT-NeoX Japanese", "GPTNeoXJapaneseConfig", NO_BLOCK, PADDED),
    "gpt_bigcode": A("StarCoder, SantaCoder", "GPTBigCodeConfig", GPT),
    "starcoder2": A("StarCoder 2", "Starcoder2Config", GROUPED | WINDOW),
    "gpt_oss": A("gpt-oss", "GptOssConfig", HEADS | LOCAL | MIXED | YARN, PADDED),
    "opt": A("OPT", "OPTConfig", OPT),
    "opt_350m": A("OPT 350M", "OPTConfig", OPT | {"word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "bloom": A("BLOOM", "BloomConfig", TOKENS | {"hidden_size": 32, "n_layer": 2, "n_head": 4}, PADDED),
    "mpt": A("MPT", "MptConfig", TOKENS | {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 256},
             PADDED),
    "xglm": A("XGLM", "XGLMConfig", TOKENS | {"d_model": 32, "num_layers": 2, "attention_heads": 4,
              "ffn_dim": 48, "max_position_embeddings": 256}, PADDED),
    "biogpt": A("BioGPT", "BioGptConfig", FULL),
    "falcon": A("Falcon 7B", "FalconConfig", NO_BLOCK | {"multi_query": True}, PADDED),
    "falcon_new": A("Falcon 40B, 2, 180B", "FalconConfig", NO_BLOCK | {"new_decoder_architecture": True,
                    "num_kv_heads": 2}, PADDED),
    "falcon_alibi": A("Falcon RW", "FalconConfig", NO_BLOCK | {"alibi": True, "multi_query": False,
                      "parallel_attn": False, "bias": True}, PADDED),
    "falcon_h1": A("Falcon H1", "FalconH1Config", HEADS | MAMBA2 | {"mamba_d_ssm": 64}, SINGLE,
                   ("out_proj",)),
    "falcon_mamba": A("Falcon Mamba", "FalconMambaConfig", STATE, ANEW, ("out_proj",)),
    "mamba": A("Mamba", "MambaConfig", STATE, ANEW, ("out_proj",)),
    "mamba2": A("Mamba 2, Codestral Mamba", "Mamba2Config", STATE | {"num_heads": 8, "head_dim": 8,
                "n_groups": 2, "chunk_size": 16}, SINGLE, ("out_proj",)),
    "rwkv": A("RWKV 4", "RwkvConfig", WIDTHS | {"vocab_size": VOCABULARY, "bos_token_id": 0,
              "eos_token_id": 1, "attention_hidden_size": 32, "context_length": 256}, ANEW),
    "jamba": A("Jamba", "JambaConfig", GROUPED | {"num_experts": 4, "num_experts_per_tok": 2,
               "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8,
               "use_mamba_kernels": False}, SINGLE),
    "zamba": A("Zamba", "ZambaConfig", ZAMBA | {"use_mamba_kernels": False}, SINGLE),
    "zamba2": A("Zamba 2", "Zamba2Config", ZAMBA | {"n_mamba_heads": 8, "chunk_size": 16, "adapter_rank": 4},
                SINGLE),
    "bamba": A("Bamba", "BambaConfig", GROUPED | MAMBA2 | {"attn_layer_indices": [1]}, SINGLE),
    "nemotron": A("Nemotron, Minitron", "NemotronConfig", GROUPED),
    "nemotron_h": A("Nemotron H, Nemotron 3", "NemotronHConfig", {key: value for key, value in HEADS.items()
                    if key != "num_hidden_layers"} | {"ssm_state_size": 8,
                    "layers_block_type": ["mamba", "attention", "moe", "mamba"],
                    "mamba_num_heads": 8, "mamba_head_dim": 8, "n_groups": 2,
                    "chunk_size": 16, "n_routed_experts": 4, "moe_intermediate_size": 24,
                    "moe_shared_expert_intermediate_size": 24}, SINGLE, ("out_proj",)),
    "granite": A("Granite 3", "GraniteConfig", GROUPED | {"embedding_multiplier": 2.0, "logits_scaling": 3.0,
                 "residual_multiplier": 0.5}),
    "granitemoe": A("Granite 3 MoE", "GraniteMoeConfig", GROUPED | LOCAL),
    "granitemoehybrid": A("Granite 4", "GraniteMoeHybridConfig", GROUPED | LOCAL | MAMBA2 | {"layer_types":
                          ["mamba", "attention"], "shared_intermediate_size": 24}, SINGLE),
    "cohere": A("Command R", "CohereConfig", GROUPED),
    "cohere2": A("Command R7B, Command A", "Cohere2Config", HEADS | MIXED),
    "deepseek_v2": A("DeepSeek V2", "DeepseekV2Config", FULL | LATENT | ROUTED, PADDED, FUSED),
    "deepseek_v3": A("DeepSeek V3, R1", "DeepseekV3Config", FULL | LATENT | ROUTED, PADDED, FUSED),
    "glm": A("GLM 4 9B", "GlmConfig", HEADS),
    "glm4": A("GLM 4 0414, GLM Z1", "Glm4Config", HEADS),
    "glm4_moe": A("GLM 4.5, 4.6", "Glm4MoeConfig", HEADS | ROUTED, peft_only=FUSED),
    "ernie4_5": A("Ernie 4.5", "Ernie4_5Config", HEADS),
    "ernie4_5_moe": A("Ernie 4.5 MoE", "Ernie4_5_MoeConfig", GROUPED | {"moe_num_experts": 4, "moe_k": 2,
                      "moe_intermediate_size": 24, "moe_layer_start_index": 0}, peft_only=FUSED),
    "smollm3": A("SmolLM 3", "SmolLM3Config", GROUPED | {"no_rope_layers": [1, 0]}),
    "stablelm": A("StableLM", "StableLmConfig", GROUPED),
    "persimmon": A("Persimmon", "PersimmonConfig", FULL),
    "hunyuan": A("Hunyuan dense", "HunYuanDenseV1Config", HEADS),
    "hunyuan_moe": A("Hunyuan MoE", "HunYuanMoEV1Config", HEADS | {"num_experts": 4, "moe_topk": [2, 2]},
                     peft_only=("experts",)),
    "seed_oss": A("Seed-OSS", "SeedOssConfig", HEADS),
    "exaone4": A("EXAONE 4", "Exaone4Config", HEADS | MIXED),
    "lfm2": A("LFM 2", "Lfm2Config", GROUPED | {"layer_types": ["conv", "full_attention"],
              "block_auto_adjust_ff_dim": False}, SINGLE),
    "lfm2_moe": A("LFM 2 MoE", "Lfm2MoeConfig", GROUPED | EXPERTS | {"num_dense_layers": 1,
                  "layer_types": ["conv", "full_attention"]}, SINGLE),
    "minimax": A("MiniMax Text", "MiniMaxConfig", HEADS | LOCAL | {"block_size": 16, "layer_types":
                 ["linear_attention", "full_attention"]}, ANEW, FUSED),
    "minimax_m2": A("MiniMax M2", "MiniMaxM2Config", HEADS | LOCAL, peft_only=FUSED),
    "dots1": A("dots.llm1", "Dots1Config", HEADS | ROUTED, peft_only=FUSED),
    "helium": A("Helium", "HeliumConfig", HEADS),
    "arcee": A("Arcee AFM", "ArceeConfig", GROUPED),
    "apertus": A("Apertus", "ApertusConfig", GROUPED | LLAMA3),
    "bitnet": A("BitNet", "BitNetConfig", GROUPED),
    "minicpm3": A("MiniCPM 3", "MiniCPM3Config", FULL | LATENT, PADDED),
    "dbrx": A("DBRX", "DbrxConfig", TOKENS | {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 256,
              "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8},
              "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2}}),
    "jetmoe": A("JetMoE", "JetMoeConfig", TOKENS | WIDTHS | LOCAL | {"intermediate_size": 48,
                "num_key_value_heads": 2, "kv_channels": 8, "max_position_embeddings": 256}),
    "diffllama": A("DiffLlama", "DiffLlamaConfig", GROUPED, way=("stream", "batch")),
    "doge": A("Doge", "DogeConfig", GROUPED, PADDED),
    "nanochat": A("nanochat", "NanoChatConfig", GROUPED),
    "modernbert_decoder": A("Ettin decoder", "ModernBertDecoderConfig", FULL | {"local_attention": 16}),
}  # fmt: skip


def shown_first(catalogue: dict[str, Architecture]) -> set[str]:
    """A third of the names, the same each time: one of every way through the engine, then every third."""
    ways: dict[tuple[object, ...], str] = {}
    for name, kind in catalogue.items():
        ways.setdefault((kind.way, kind.peft_only, kind.refused), name)
    chosen, others = set(ways.values()), [name for name in catalogue if name not in ways.values()]
    share = max(1, len(catalogue) // 3 - len(chosen))
    return chosen | {others[place * len(others) // share] for place in range(share)}


def save_tiny(name: str, folder: Path, settings: dict[str, Any] | None = None) -> None:
    """A model of a kind with random weights, and a tokenizer, as a folder in Hugging Face's layout.

    settings: beyond the catalogue's.
    """
    kind = CATALOGUE[name]
    torch.manual_seed(0)
    config = getattr(transformers, kind.config)(**kind.settings | (settings or {}))
    automatic = transformers.AutoModelForCausalLM
    if type(config) not in automatic._model_mapping:
        automatic = transformers.AutoModelForImageTextToText
    model = automatic.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and scales too, so that none is left out unseen
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)


TEXT = [
    "the quick brown fox jumps over the lazy dog and says hello to the cat",
    "Question: what is 12 + 30? Answer: 42. Review: great phone, bad battery. Sentiment: positive",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z 0 1 2 3 4 5 6 7 8 9 negative neutral",
]


def make_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A tokenizer of 384 tokens that knows every byte."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 4, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
