"""A family of three moods, a tiny model, and one whose tokenizer has a token for every label."""

import pytest

from contrans.concepts.contrast import family_of
from contrans.models import Model
from tests.texts import write_family
from tests.tiny import tiny, tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    return family_of(write_family(tmp_path_factory.mktemp("mood"))[0])


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny("llama", max_position_embeddings=2048)


@pytest.fixture(scope="module")
def worded(family) -> Model:
    """A model whose tokenizer has a token for every label, as real ones do."""
    lines = [f"{e.prompt} {c.label}" for c in family for e in c.positives]
    tokenizer = tiny_tokenizer().train_new_from_iterator(lines, vocab_size=400)
    module = tiny_model("llama", vocab_size=len(tokenizer), max_position_embeddings=2048)
    return Model.wrap(module, tokenizer, reference="tiny-worded")
