"""Models that stay loaded: one copy for pipelines in turn, one each at the same time, within a memory that is given."""

import gc
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from contrans.errors import SpecError
from flows import models as module
from flows.models import Models, budget, size_of
from flows.pool import Pool
from flows.spec import Compute, load_sweep
from tests.crash.material import write_matrix
from tests.flows.test_bad_input import spoil_weights


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_matrix(tmp_path_factory.mktemp("models") / "m", sources=2, targets=2, concepts=2)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CONTRANS_CACHE", str(tmp_path / "cache"))
    yield
    gc.collect()


def pools(spec: Path, models: Models, *settings: str) -> list[Pool]:
    return [Pool(point.spec, models=models) for point in load_sweep(spec, settings).points]


def names(models: Models) -> dict[str, int]:
    return {Path(reference).name: n for reference, n in models.loads.items()}


def test_pipelines_one_after_another_share_their_models(spec: Path) -> None:
    models = Models()
    for pool in pools(spec, models):
        assert pool.get("source") is pool.get("source")
        pool.get("target")
        pool.close()
    assert names(models) == {"source-0": 1, "source-1": 1, "target-0": 1, "target-1": 1}


def test_a_pool_that_is_gone_has_given_its_models_back(spec: Path) -> None:
    models = Models()
    for _ in range(2):
        [pool, *_] = pools(spec, models)
        pool.get("source")
        del pool
        gc.collect()
    assert names(models) == {"source-0": 1}


def test_pipelines_at_the_same_time_have_copies_of_their_own(spec: Path) -> None:
    models = Models()
    first, second, *_ = pools(spec, models)
    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(lambda pool: pool.get("source"), (first, second))
    assert one is not other
    first.close()
    assert pools(spec, models)[0].get("source") is one
    assert names(models) == {"source-0": 2}


def test_a_model_put_into_itself_is_one(spec: Path) -> None:
    models = Models()
    folder = spec.parent / "source-0"
    [pool] = pools(spec, models, f"source={folder}", f"target={folder}")
    assert pool.get("source") is pool.get("target")


@pytest.mark.parametrize(("room", "loads"), [(2.5, 5), (3.5, 4), (4.5, 4)])
def test_memory_holds_those_that_were_used_last(spec: Path, room: float, loads: int) -> None:
    """Cells of the matrix in its order: s0 t0, s0 t1, s1 t0, s1 t1."""
    models = Models()
    compute = Compute(device="cpu", precision="float32")
    size = max(size_of(str(spec.parent / name), compute) or 0.0 for name in ("source-0", "target-0", "target-1"))
    for pool in pools(spec, models, f"compute.memory_gb={room * size / 1e9:.12f}"):
        pool.get("source")
        pool.get("target")
        pool.close()
    assert models.loads.total() == loads + (1 if room < 3 else 0)


def test_those_that_are_wanted_last_go_first(spec: Path) -> None:
    models = Models()
    every = pools(spec, models)
    used = [(every[0], "source"), (every[0], "target")]
    for pool, side in used:
        pool.get(side)
    references = [pool.reference(side) for pool, side in used]
    models.expect(reversed(references))
    models._kept.sort(key=lambda kept: kept.reference)
    models.give_back(every[0], Compute(device="cpu", memory_gb=models._kept[1].size / 1e9))
    assert [kept.reference for kept in models._kept] == [references[1]]


def test_a_model_that_has_changed_is_loaded_anew(spec: Path, tmp_path: Path) -> None:
    folder = tmp_path / "changing"
    shutil.copytree(spec.parent / "source-0", folder)
    models = Models()
    for file in ("source-0", "source-1"):
        shutil.copytree(spec.parent / file, folder, dirs_exist_ok=True)
        [first, *_] = pools(spec, models, f"source={folder}")
        record = first.get("source").record
        first.close()
    assert models.loads.total() == 2
    [whole] = pools(spec, Models(), f"source={spec.parent / 'source-1'}", f"target={folder}")
    assert whole.get("source").record.fingerprint == record.fingerprint


def test_a_model_that_cannot_be_loaded_takes_no_place(spec: Path, tmp_path: Path) -> None:
    spoil_weights(spec.parent / "source-0", tmp_path / "spoilt", float("nan"))
    models = Models()
    [first, *_] = pools(spec, models, f"source={tmp_path / 'spoilt'}")
    for _ in range(2):
        with pytest.raises(Exception, match="NaN or infinite"):
            first.get("source")
    assert names(models) == {}


def test_what_is_expected_is_what_is_loaded(spec: Path) -> None:
    models, compute = Models(), Compute(device="cpu", precision="float32")
    [pool, *_] = pools(spec, models)
    expected = size_of(pool.reference("source"), compute)
    model = pool.get("source")
    assert expected == pytest.approx(sum(4 * p.numel() for p in model.module.parameters()), rel=0.02)
    models.clear()
    assert len(models._kept) == 1
    pool.close()
    models.clear()
    assert models._kept == []


def test_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = budget(Compute(device="cpu"))
    assert 1e9 < whole <= module.SHARE_OF_MEMORY * 1e13
    monkeypatch.setenv(module.LIMIT, "2.5")
    assert budget(Compute(device="cpu")) == 2.5e9
    assert budget(Compute(device="cpu", memory_gb=1)) == 1e9


@pytest.mark.parametrize("said", ["much", "0", "-1", "nan", "inf"])
def test_a_wrong_budget_is_named(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv(module.LIMIT, said)
    with pytest.raises(SpecError, match=f"CONTRANS_MODELS_GB is the number of gigabytes .* not '{said}'"):
        budget(Compute())
