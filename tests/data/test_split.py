from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bocr_onnx.data import Pools, Samples, Split, split
from bocr_onnx.errors import DataError, UsageError


def samples(labels: list[int] | None, n: int = 0) -> Samples:
    """Every image holds its own row number, so it can be recognised in a part."""
    n = len(labels) if labels is not None else n
    images = np.arange(n, dtype=np.float32).reshape(n, 1, 1, 1)
    found = None if labels is None else np.array(labels, np.int64)
    return Samples(images=images, labels=found, classes=(), name="s")


def single(n: int, n_classes: int = 3) -> Pools:
    pool = samples([i % n_classes for i in range(n)])
    return Pools(train=None, held_out=None, single=pool, labelled=True, path="one")


def two(n_train: int, n_held_out: int) -> Pools:
    train, held_out = (samples([i % 3 for i in range(n)]) for n in (n_train, n_held_out))
    return Pools(train=train, held_out=held_out, single=None, labelled=True, path="two")


def rows(part: Samples) -> set[int]:
    found = [int(value) for value in part.load().ravel()]
    assert len(set(found)) == len(found)
    return set(found)


def check_indices(result: Split) -> None:
    for name, part in result.indices.items():
        assert tuple(getattr(result, name).load().ravel().astype(int)) == part.rows


@given(n=st.integers(3, 200), seed=st.integers(0, 2**32), sizes=st.tuples(*[st.integers(1, 80)] * 3))
def test_a_single_pool_gives_three_disjoint_parts(n: int, seed: int, sizes: tuple[int, int, int]) -> None:
    result = split(single(n), seed=seed, n_score=sizes[0], n_recovery=sizes[1], n_final=sizes[2])
    score, recovery, final = rows(result.score), rows(result.recovery), rows(result.final)
    assert score
    assert recovery
    assert final
    assert len(score | recovery | final) == len(score) + len(recovery) + len(final)
    assert len(score) <= sizes[0]
    assert len(recovery) <= sizes[1]
    assert len(final) <= sizes[2]
    assert rows(result.training) == set(range(n)) - score - final
    assert recovery <= rows(result.training)
    check_indices(result)


@given(
    n=st.tuples(st.integers(2, 200), st.integers(1, 50)),
    seed=st.integers(0, 2**32),
    sizes=st.tuples(*[st.integers(1, 150)] * 3),
)
def test_two_pools_keep_the_held_out_apart(n: tuple[int, int], seed: int, sizes: tuple[int, int, int]) -> None:
    result = split(two(*n), seed=seed, n_score=sizes[0], n_recovery=sizes[1], n_final=sizes[2])
    score, recovery, training = rows(result.score), rows(result.recovery), rows(result.training)
    assert len(score) == min(sizes[0], n[0] // 2)
    assert len(recovery) == min(sizes[1], n[0] - len(score))
    assert len(result.final) == min(sizes[2], n[1])
    assert not score & training
    assert score | training == set(range(n[0]))
    assert recovery <= training
    pools = {name: part.pool for name, part in result.indices.items()}
    assert pools == {"score": "train", "recovery": "train", "final": "held_out", "training": "train"}
    check_indices(result)


@given(labels=st.lists(st.integers(0, 4), min_size=10, max_size=200), seed=st.integers(0, 99))
def test_draws_are_stratified(labels: list[int], seed: int) -> None:
    pools = Pools(train=samples(labels), held_out=samples([0]), single=None, labelled=True, path="p")
    result = split(pools, seed=seed, n_score=len(labels) // 2, n_recovery=len(labels))
    assert result.score.labels is not None
    counts = np.bincount(result.score.labels, minlength=5)
    expected = np.bincount(labels, minlength=5) * (len(result.score) / len(labels))
    assert np.abs(counts - expected).max() < 3


def test_thirds_of_a_single_pool() -> None:
    result = split(single(1000), seed=0)
    assert (len(result.score), len(result.recovery), len(result.final)) == (300, 300, 400)


def test_a_prefix_of_a_part_is_stratified() -> None:
    result = split(two(3000, 3000), seed=0, n_score=900)
    assert result.score.labels is not None
    assert np.abs(np.bincount(result.score.labels[:90]) - 30).max() <= 1


def test_the_seed_decides() -> None:
    first, again, other = (split(single(50), seed=seed) for seed in (1, 1, 2))
    assert first.indices == again.indices
    assert first.indices != other.indices


def test_unlabelled_pools() -> None:
    pools = Pools(train=None, held_out=None, single=samples(None, 10), labelled=False, path="p")
    result = split(pools, seed=0)
    assert result.score.labels is None
    assert not result.labelled
    assert rows(result.score) | rows(result.recovery) | rows(result.final) == set(range(10))


def test_describe_is_json_and_blind_to_order() -> None:
    result = split(two(20, 7), seed=3, n_score=4, n_recovery=5)
    record = json.loads(json.dumps(result.describe()))
    assert (record["path"], record["seed"], record["labelled"]) == ("two", 3, True)
    sizes = {name: (part["pool"], part["n_images"]) for name, part in record["parts"].items()}
    assert sizes == {
        "score": ("train", 4),
        "recovery": ("train", 5),
        "final": ("held_out", 7),
        "training": ("train", 16),
    }
    whole = split(two(20, 7), seed=4, n_score=4, n_recovery=5).describe()["parts"]
    assert whole["final"]["rows_sha256"] == record["parts"]["final"]["rows_sha256"]
    assert whole["score"]["rows_sha256"] != record["parts"]["score"]["rows_sha256"]


@pytest.mark.parametrize(
    ("pools", "message"),
    [
        (single(2), "images of one must be at least 3, got 2"),
        (two(1, 5), "train images of two must be at least 2, got 1"),
        (two(5, 0), "held-out images of two must be at least 1, got 0"),
    ],
)
def test_too_few_images(pools: Pools, message: str) -> None:
    with pytest.raises(DataError) as info:
        split(pools, seed=0)
    assert info.value.message == message
    assert "One image each is needed" in info.value.hint


def test_half_a_pair_of_pools() -> None:
    pools = Pools(train=samples([0, 1]), held_out=None, single=None, labelled=True, path="p")
    with pytest.raises(DataError, match="p must have a held_out pool or be a single pool"):
        split(pools, seed=0)


@pytest.mark.parametrize("name", ["n_score", "n_recovery", "n_final"])
def test_sizes_must_be_positive(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} must be at least 1, got 0"):
        split(single(9), seed=0, **{name: 0})


def test_a_negative_seed() -> None:
    with pytest.raises(UsageError, match="seed must be 0 or more, got -1"):
        split(single(9), seed=-1)
