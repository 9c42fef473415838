"""A matrix that is killed at random points ends in the registry of one that nobody disturbed: the short form.

`python -m tests.crash.matrix --pairs 200 --concepts 12 --kills 50` is the long one.
"""

from pathlib import Path

from tests.crash.matrix import crash


def test_a_matrix_that_is_killed_ends_in_the_same_registry(tmp_path: Path, prefect_url: str) -> None:
    report = crash(tmp_path, pairs=3, concepts=3, kills=2, seed=1, prefect_url=prefect_url)
    assert report.equal, report
    assert len(report.digest) == 64
    assert report.left_over == []
    assert 0 < report.overhead < 1
    assert report.kills > 0
