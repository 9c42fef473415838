"""Which number format a machine gets, and how it is found out."""

import time

import pytest
import torch

from contrans.errors import SpecError
from contrans.states import precision
from contrans.states.precision import autocast, bfloat16_gain, onednn_linear, resolve_precision, times_faster

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_named_precision_stays(name, device):
    assert resolve_precision(name, torch.device(device)) == name


@pytest.mark.parametrize(
    ("named", "gain", "expected"),
    [(True, 2.0, "bfloat16"), (True, 1.0, "bfloat16"), (True, 0.7, "float32"), (False, 2.0, "float32")],
)
def test_auto_goes_by_the_instruction_set_unless_times_contradict(named, gain, expected, monkeypatch):
    monkeypatch.setattr(precision, "_names_bfloat16", lambda: named)
    monkeypatch.setattr(precision, "bfloat16_gain", lambda: gain)
    assert resolve_precision("auto", CPU) == expected


def test_auto_is_float32_where_nothing_is_known():
    assert resolve_precision("auto", torch.device("meta")) == "float32"


def test_a_measurement_is_made_once():
    gain = bfloat16_gain()
    assert gain > 0
    assert bfloat16_gain() == gain
    assert resolve_precision("auto", CPU) == resolve_precision("auto", CPU)


def test_an_unknown_precision():
    with pytest.raises(SpecError, match="'half' is not known; use one of auto, float32, bfloat16"):
        resolve_precision("half", CPU)


def test_paired_rounds_survive_one_slow_round():
    slow = iter([0.0] * 3 + [0.2] + [0.0] * 20)

    def ours() -> None:
        time.sleep(0.002 + next(slow))

    assert 2 < times_faster(ours, lambda: time.sleep(0.02)) < 20


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 12), (2, 5, 12), (1, 1, 12)])
def test_onednn_multiplies_as_the_blas_does(shape, bias):
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(shape, generator=generator), torch.randn(9, 12, generator=generator)
    b = torch.randn(9, generator=generator) if bias else None
    with torch.inference_mode():
        made = onednn_linear(x, weight, b)
        torch.testing.assert_close(made, torch.nn.functional.linear(x, weight, b))
        if x.ndim == 3:
            # attention hands over its heads as a view that is not contiguous
            turned = x.transpose(0, 1)
            torch.testing.assert_close(onednn_linear(turned, weight, b), torch.nn.functional.linear(turned, weight, b))


def test_autocast_leaves_the_residual_stream_in_float32():
    x, weight = torch.randn(3, 4), torch.randn(4, 4)
    with autocast(CPU, "bfloat16"):
        assert (x + torch.nn.functional.linear(x, weight)).dtype == torch.float32
    with autocast(CPU, "float32"):
        assert torch.nn.functional.linear(x, weight).dtype == torch.float32


@pytest.mark.parametrize("faster", [True, False])
@pytest.mark.parametrize(("rows", "d", "e"), [(40, 7, 9), (300, 32, 1), (0, 4, 5), (12, 0, 3)])
def test_cross_products_are_those_of_float64(
    faster: bool, rows: int, d: int, e: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "onednn_is_faster", lambda: faster)
    x, y = (torch.randn(rows, width, generator=torch.Generator().manual_seed(width)) for width in (d, e))
    with torch.inference_mode():
        made = precision.cross_product(x, y)
    assert made.dtype == torch.float32
    torch.testing.assert_close(made.double(), x.double().T @ y.double(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(precision.cross_product(x.double(), y.double()), x.double().T @ y.double())
