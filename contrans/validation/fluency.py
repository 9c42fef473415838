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


class FluencyMeter:
    """Mean KL and perplexity of a model under shifts of one block, on fixed generic texts."""

    def __init__(self, model: Model, block: int, texts: Sequence[str], *, precision: str = "float32") -> None:
        """Runs the unsteered model once over the texts.

        Args:
            model: the model.
            block: the block whose output will be shifted.
            texts: generic texts, none of them about the concept; a few hundred tokens are enough.
            precision: "float32" or "bfloat16" products.
        """
        ids = encode(model, texts).ids
        # log-probabilities are [tokens, vocabulary]: small batches keep them out of memory's way
        self._engine = ScoringEngine(model, block, ids, every_position=True, precision=precision, batch_tokens=512)
        self._ids = [torch.tensor(row) for row in ids]
        self._base: list[torch.Tensor] = []
        self._base_nll = 0.0
        self._tokens = 0
        for indices, logits in self._engine.logits(None):
            base = torch.log_softmax(logits, -1)
            self._base.append(base.to(torch.float16).cpu())
            nll, n = self._nll(base, indices)
            self._base_nll += nll
            self._tokens += n

    def _nll(self, logp: torch.Tensor, indices: list[int]) -> tuple[float, int]:
        total, n, row = 0.0, 0, 0
        for i in indices:
            ids = self._ids[i].to(logp.device)
            at = logp[row : row + len(ids) - 1]
            total -= float(at.gather(1, ids[1:, None]).sum())
            n += len(ids) - 1
            row += len(ids)
        return total, n

    @property
    def n_tokens(self) -> int:
        """Tokens that KL and perplexity are means over."""
        return self._tokens

    def kl(self, shift: torch.Tensor) -> float:
        """Mean KL of a shift [d] in nats per token, without interval: what a search for a dose asks many times."""
        total, n = 0.0, 0
        for _, _, kl in self._per_text(shift):
            total, n = total + float(kl.sum()), n + len(kl)
        return total / n

    def _per_text(self, shift: torch.Tensor) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """For each text its index, steered log-probabilities [tokens, vocabulary] and KL [tokens − 1]."""
        for (indices, logits), base in zip(self._engine.logits(shift), self._base, strict=True):
            steered = torch.log_softmax(logits, -1)
            reference = base.to(steered.device).float()
            kl = (reference.exp() * (reference - steered)).sum(-1)
            row = 0
            for i in indices:
                part = slice(row, row + len(self._ids[i]))
                # the state after BOS alone is not shifted there and says nothing about text
                yield i, steered[part], kl[part][1:]
                row = part.stop

    def measure(self, shift: torch.Tensor, *, seed: int = 0) -> Cost:
        """The cost of a shift [d] at all positions.

        Args:
            shift: what is added to the block's output.
            seed: of the bootstrap over texts.
        """
        per_text: list[tuple[float, int]] = []
        nll = 0.0
        for i, steered, kl in self._per_text(shift):
            nll += self._nll(steered, [i])[0]
            per_text.append((float(kl.sum()), len(kl)))
        sums = torch.tensor([s for s, _ in per_text], dtype=torch.float64)
        counts = torch.tensor([n for _, n in per_text], dtype=torch.float64)
        draws = torch.randint(len(sums), (2000, len(sums)), generator=torch.Generator().manual_seed(seed))
        means = sums[draws].sum(1) / counts[draws].sum(1)
        low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        ratio = float(torch.tensor((nll - self._base_nll) / self._tokens).exp())
        return Cost(float(sums.sum() / counts.sum()), low, high, ratio, int(counts.sum()))
