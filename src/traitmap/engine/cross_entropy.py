"""Cross-entropy whose gradient is written over the logits as they are read, in pieces that stay in cache."""

from __future__ import annotations

import torch

_NUMBERS = 1 << 20  # logits of one piece


def backward_from(
    logits: torch.Tensor, wanted: torch.Tensor, weights: torch.Tensor, *, piece: int = _NUMBERS
) -> torch.Tensor:
    """Differentiate sum_p weights_p * (-log softmax(logits_p)[wanted_p]) and return its terms, (P,).

    logits (P, V) are overwritten: nothing may need them afterwards. The softmax is taken in float32 at
    least, and no second copy of the logits is ever made. piece: logits worked on at a time.
    """
    gradient, terms = logits.detach(), []
    wide = torch.promote_types(logits.dtype, torch.float32)
    weights = weights.to(wide)
    rows = max(1, piece // logits.shape[1])
    with torch.no_grad():
        for start in range(0, len(gradient), rows):
            part, aim = gradient[start : start + rows], wanted[start : start + rows, None]
            weight = weights[start : start + rows, None]
            exact = part.to(wide)
            top, own = exact.amax(dim=1, keepdim=True), exact.gather(1, aim)
            shares = exact.sub(top).exp_()
            total = shares.sum(dim=1, keepdim=True)
            terms.append((total.log() + top - own).mul_(weight).squeeze(1))
            part.copy_(shares.mul_(weight / total).scatter_add_(1, aim, -weight))
    logits.backward(gradient)
    return torch.cat(terms)
