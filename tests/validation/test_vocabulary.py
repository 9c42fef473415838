"""Reading logits in parts gives what reading them whole does."""

import pytest
import torch

from contrans.validation.vocabulary import by_rows, total, total_and_best


@pytest.mark.parametrize("shape", [(1, 300_000), (3, 200_000), (7, 50_000), (5, 11), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_the_whole(shape, dtype):
    logits = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 30).to(dtype)
    before = logits.clone()
    exact = logits.double()
    totals, best = total_and_best(logits)
    torch.testing.assert_close(totals, exact.logsumexp(-1).float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(total(logits), exact.logsumexp(-1).float(), rtol=1e-5, atol=1e-5)
    assert torch.equal(exact.gather(1, best[:, None])[:, 0], exact.amax(-1))
    assert torch.equal(logits, before)
    assert torch.equal(torch.cat(by_rows(logits)), logits)


def test_a_score_that_is_not_finite_stays_so():
    logits = torch.zeros(2, 10)
    logits[1, 3] = torch.nan
    assert total(logits).isfinite().tolist() == [True, False]
    assert total_and_best(logits)[0].isfinite().tolist() == [True, False]
