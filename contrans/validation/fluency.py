"""What a shift costs on text that has nothing to do with the concept: KL to the unsteered model, and perplexity."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from contrans.models import Model
from contrans.states.encode import encode
from contrans.validation.engine import ScoringEngine


@dataclass(frozen=True)
class Cost:
    """The price of a shift.

    Attributes:
        kl: mean KL(unsteered ‖ steered) in nats per token.
        kl_low: lower end of its 95 % interval, by bootstrap over texts.
        kl_high: upper end.
        perplexity_ratio: perplexity of the texts under the shift over that of the unsteered model.
        n_tokens: tokens behind it.
    """

    kl: float
    kl_low: float
    kl_high: float
    perplexity_ratio: float
    n_tokens: int


_BATCH = 192
"""Tokens whose logits stand in memory at once; more are slower, since each takes a whole vocabulary."""


class FluencyMeter:
    """Mean KL and perplexity of a model under shifts of one block, on fixed generic texts."""

    def __init__(self, model: Model, block: int, texts: Sequence[str], *, precision: str = "float32") -> None:
        """Runs the unsteered model once over the texts and keeps its next-token distributions in float32.

        Args:
            model: the model.
            block: the block whose output will be shifted.
            texts: generic texts, none of them about the concept; a few hundred tokens are enough.
            precision: "float32" or "bfloat16" products.
        """
        ids = encode(model, texts).ids
        self._engine = ScoringEngine(model, block, ids, every_position=True, precision=precision, batch_tokens=_BATCH)
        self._ids = [torch.tensor(row) for row in ids]
        self._base: list[tuple[torch.Tensor, torch.Tensor]] = []
        for _, logits in self._engine.logits(None):
            logp = torch.log_softmax(logits, -1)
            p = logp.exp()
            self._base.append((p, torch.linalg.vecdot(p, logp)))
        self._base_nll = sum(float(nll.sum()) for _, _, nll in self._read(None))
        self.n_tokens = sum(len(row) - 1 for row in ids)
        """Tokens that KL and perplexity are means over."""

    def kl(self, shift: torch.Tensor) -> float:
        """Mean KL of a shift [d] in nats per token, without interval: what a search for a dose asks many times."""
        return sum(float(kl.sum()) for _, kl, _ in self._read(shift)) / self.n_tokens

    def _read(self, shift: torch.Tensor | None) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Each text's index, its KL to the unsteered model and its −log p, both [tokens − 1]."""
        for (indices, logits), (p, entropy) in zip(self._engine.logits(shift), self._base, strict=True):
            total = torch.logsumexp(logits, -1)
            # Σ p log(p/q) with log q = logits − total: no second distribution is built
            kl = entropy - torch.linalg.vecdot(p, logits) + total
            row = 0
            for i in indices:
                ids = self._ids[i].to(logits.device)
                part = slice(row, row + len(ids) - 1)
                nll = total[part] - logits[part].gather(1, ids[1:, None])[:, 0]
                # the state after BOS alone is not shifted there and says nothing about text
                yield i, kl[row + 1 : row + len(ids)], nll
                row += len(ids)

    def measure(self, shift: torch.Tensor, *, seed: int = 0) -> Cost:
        """The cost of a shift [d] at all positions.

        Args:
            shift: what is added to the block's output.
            seed: of the bootstrap over texts.
        """
        read = [(float(kl.sum()), len(kl), float(nll.sum())) for _, kl, nll in self._read(shift)]
        sums, counts, nll = torch.tensor(read, dtype=torch.float64).T
        draws = torch.randint(len(sums), (2000, len(sums)), generator=torch.Generator().manual_seed(seed))
        means = sums[draws].sum(1) / counts[draws].sum(1)
        low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        ratio = float(((nll.sum() - self._base_nll) / self.n_tokens).exp())
        return Cost(float(sums.sum() / counts.sum()), low, high, ratio, int(counts.sum()))
