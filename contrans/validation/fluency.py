"""What a shift costs on text that has nothing to do with the concept: KL to the unsteered model, and perplexity."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from contrans.models import Model
from contrans.states.encode import encode
from contrans.validation.engine import ScoringEngine
from contrans.validation.vocabulary import by_rows


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
            parts = [torch.log_softmax(part, -1) for part in by_rows(logits)]
            entropy = torch.cat([torch.linalg.vecdot(part.exp(), part) for part in parts])
            self._base.append((torch.cat([part.exp_() for part in parts]), entropy))
        self._base_nll = sum(float(nll.sum()) for _, _, nll in self._read([None])[0])
        self.n_tokens = sum(len(row) - 1 for row in ids)
        """Tokens that KL and perplexity are means over."""

    def kl(self, shift: torch.Tensor) -> float:
        """Mean KL of a shift [d] in nats per token, without interval: what a search for a dose asks many times."""
        return self.kl_many([shift])[0]

    def kl_many(self, shifts: Sequence[torch.Tensor]) -> list[float]:
        """The same for each of many shifts, several of which go through the model at once."""
        return [sum(float(kl.sum()) for _, kl, _ in texts) / self.n_tokens for texts in self._read(shifts)]

    def _read(self, shifts: Sequence[torch.Tensor | None]) -> list[list[tuple[int, torch.Tensor, torch.Tensor]]]:
        """Per shift each text's index, its KL to the unsteered model and its −log p, both [tokens − 1]."""
        read: list[list[tuple[int, torch.Tensor, torch.Tensor]]] = [[] for _ in shifts]
        batches = [iter(self._base) for _ in shifts]
        for number, indices, logits in self._engine.stacked(shifts):
            p, entropy = next(batches[number])
            sums = [
                (part.logsumexp(-1), torch.linalg.vecdot(q, part))
                for q, part in ((q, some.float()) for q, some in zip(by_rows(p), by_rows(logits), strict=True))
            ]
            total, along = (torch.cat(column) for column in zip(*sums, strict=True))
            # Σ p log(p/q) with log q = logits − total: no second distribution is built
            kl = entropy - along + total
            row = 0
            for i in indices:
                ids = self._ids[i].to(logits.device)
                part = slice(row, row + len(ids) - 1)
                nll = total[part] - logits[part].gather(1, ids[1:, None])[:, 0].float()
                # the state after BOS alone is not shifted there and says nothing about text
                read[number].append((i, kl[row + 1 : row + len(ids)], nll))
                row += len(ids)
        return read

    def measure(self, shift: torch.Tensor, *, seed: int = 0) -> Cost:
        """The cost of a shift [d] at all positions.

        Args:
            shift: what is added to the block's output.
            seed: of the bootstrap over texts.
        """
        read = [(float(kl.sum()), len(kl), float(nll.sum())) for _, kl, nll in self._read([shift])[0]]
        sums, counts, nll = torch.tensor(read, dtype=torch.float64).T
        draws = torch.randint(len(sums), (2000, len(sums)), generator=torch.Generator().manual_seed(seed))
        means = sums[draws].sum(1) / counts[draws].sum(1)
        low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        ratio = float(((nll.sum() - self._base_nll) / self.n_tokens).exp())
        return Cost(float(sums.sum() / counts.sum()), low, high, ratio, int(counts.sum()))
