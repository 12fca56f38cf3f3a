"""Does ``explain`` find what is planted in the embedded families, and nothing else? No training needed.

    python benchmarks/explain_planted.py            20 seeds of every case, about six minutes on one core

Gains of the 11 families on 10 of them are simulated from what the families are (their answer
lengths, class shares, answer words, common lexicon); ``explain`` sees only texts drawn anew for every seed,
through ``pair_features``. A seed is right where the planted causes are called ``yes``, with their sign, and
no other composite is. The last case has effect and scatter of the trained study's own size (docs/mini.md).
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from planted_causes import CAUSES, drawn_texts, gains
from traitmap.analysis.explanation.explain import explain
from traitmap.analysis.profiles.pairs import PairFeatures, pair_features

SEEDS = 20
TEXTS = 200
CASES = (
    (12.0, 8.0, "planted"),
    (7.0, 10.0, "as small as in the trained study"),
)


def main() -> None:
    """Every cause by itself, all together, and none."""
    features = {seed: pair_features(*drawn_texts(TEXTS, seed), seed=seed) for seed in range(SEEDS)}
    for effect, scatter, words in CASES:
        print(f"{words}: {effect:g} points for one SD of a cause, {scatter:g} points of scatter", flush=True)
        for causes in ((), *((cause,) for cause in CAUSES), tuple(CAUSES)):
            _case(causes, effect, scatter, features)


def _case(causes: tuple[str, ...], effect: float, scatter: float, features: dict[int, PairFeatures]) -> None:
    wanted = {CAUSES[cause] for cause in causes}
    right, found, others, naive = 0, 0, Counter(), 0
    for seed in range(SEEDS):
        told = explain(gains(causes, effect, scatter, seed), features=features[seed], seed=seed)
        called = {one.name for one in told.joint if one.verdict == "yes" and one.effect.value > 0}
        reversed_ = {one.name for one in told.joint if one.verdict == "yes" and one.effect.value < 0}
        found += wanted <= called
        right += called == wanted and not reversed_
        others.update((called - wanted) | reversed_)
        naive += any(one.mantel.naive_p < 0.05 for one in told.joint if one.name not in wanted)
    wrong = ", ".join(f"{name} {count}" for name, count in sorted(others.items())) or "none"
    print(
        f"  {' + '.join(causes) or 'nothing'}: found in {found} of {SEEDS}, and nothing else in {right}; "
        f"others called: {wrong}; naive Pearson calls another in {naive}",
        flush=True,
    )


if __name__ == "__main__":
    main()
