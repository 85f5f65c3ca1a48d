"""Least squares whose ridge is chosen by images that are left out."""

from __future__ import annotations

import numpy as np
import pytest

from bocr_onnx.graph import Array
from bocr_onnx.recovery.normal import RIDGES, NormalSums, solve_parts


def rows_of(n: int, n_columns: int) -> Array:
    spread = np.linspace(1, 3, n_columns)
    return (np.random.default_rng(3).standard_normal((n, n_columns)) * spread + 2).astype(np.float32)


def summed(rows: Array, target: Array, blocks: int = 1, n_parts: int = 2) -> list[NormalSums]:
    """Returns the sums of some parts, each of two batches, of an operator of so many blocks."""
    parts = []
    for number in np.array_split(np.arange(len(rows)), n_parts):
        parts.append(NormalSums(blocks))
        for batch in (number[:70], number[70:]):
            parts[-1].add(rows[batch], target[batch])
    return parts


def test_a_dense_fit_finds_weights_and_bias() -> None:
    truth, bias = np.random.default_rng(4).standard_normal((3, 6)), np.array([1.0, -2.0, 5.0])
    rows = rows_of(4000, 6)
    target = (rows @ truth.T + bias).astype(np.float32)
    matrix, found = solve_parts(summed(rows, target), np.zeros((3, 6)))
    np.testing.assert_allclose(matrix, truth, atol=0.02)
    np.testing.assert_allclose(rows @ matrix.T + found, target, atol=0.3)


def test_a_depthwise_fit_finds_the_taps_of_every_channel_and_its_bias() -> None:
    truth, bias = np.random.default_rng(4).standard_normal((3, 4)), np.array([1.0, -2.0, 5.0])
    rows = rows_of(4000, 12)
    target = (np.einsum("nct,ct->nc", rows.reshape(-1, 3, 4), truth) + bias).astype(np.float32)
    matrix, found = solve_parts(summed(rows, target, blocks=3), np.zeros((3, 4)))
    np.testing.assert_allclose(matrix, truth, atol=0.02)
    np.testing.assert_allclose(np.einsum("nct,ct->nc", rows.reshape(-1, 3, 4), matrix) + found, target, atol=0.3)


@pytest.mark.parametrize("blocks", [1, 5])
def test_a_grouped_fit_finds_every_blocks_own_weights(blocks: int) -> None:
    """Blocks of two outputs, each of three inputs of its own; the sums are those of as many dense operators."""
    rng = np.random.default_rng(4)
    truth, bias = rng.standard_normal((blocks, 2, 3)), rng.standard_normal((blocks, 2))
    rows = rows_of(4000, 3 * blocks)
    target = (np.einsum("ngc,goc->ngo", rows.reshape(-1, blocks, 3), truth) + bias).reshape(-1, 2 * blocks)
    parts = summed(rows, target.astype(np.float32), blocks)
    matrix, found = solve_parts(parts, np.zeros((2 * blocks, 3)))
    np.testing.assert_allclose(matrix, truth.reshape(-1, 3), atol=0.02)
    np.testing.assert_allclose(found, bias.reshape(-1), atol=0.1)
    each = slice(3 * (blocks - 1), None), slice(2 * (blocks - 1), None)
    (alone,) = summed(rows[:, each[0]], target[:, each[1]].astype(np.float32), n_parts=1)
    (whole,) = summed(rows, target.astype(np.float32), blocks, n_parts=1)
    last = np.zeros((2 * blocks, 3)), np.zeros(2 * blocks)
    last[0][-2:], last[1][-2:] = truth[-1], bias[-1]
    gained = whole.error(*last) - whole.error(0 * last[0], 0 * last[1])
    expected = alone.error(truth[-1], bias[-1]) - alone.error(0 * truth[-1], 0 * bias[-1])
    assert gained == pytest.approx(expected, rel=1e-5)


def test_what_the_rows_do_not_tell_stays_as_it_was() -> None:
    """Two columns never vary, so nothing is known of their weights; the mean of the target is met all the same."""
    rows = rows_of(4000, 4)
    rows[:, [1, 2]] = 3
    start = np.array([[0.5, -1.5, 4.0, 1.0]])
    truth = np.array([[1.0, 7.0, 7.0, 2.0]])
    target = (rows @ truth.T).astype(np.float32)
    matrix, bias = solve_parts(summed(rows, target), start)
    np.testing.assert_allclose(matrix, [[1.0, -1.5, 4.0, 2.0]], atol=0.3)
    assert float((rows @ matrix.T + bias).mean()) == pytest.approx(float(target.mean()), rel=1e-3)


def test_the_error_is_that_of_the_rows() -> None:
    rows, rng = rows_of(300, 8), np.random.default_rng(0)
    target = rng.standard_normal((300, 1)).astype(np.float32)
    (sums,) = summed(rows, target, n_parts=1)
    fits = [(rng.standard_normal((1, 8)), rng.standard_normal(1)) for _ in range(2)]
    true = [float(np.sum((rows @ matrix.T + bias - target) ** 2)) for matrix, bias in fits]
    found = [sums.error(matrix, bias) for matrix, bias in fits]
    assert found[1] - found[0] == pytest.approx(true[1] - true[0], rel=1e-4)


def alike(n_images: int, per_image: int) -> tuple[Array, Array, Array]:
    """Returns rows, targets and the truth: the rows of an image are nearly the same, and targets are noisy by image."""
    rng = np.random.default_rng(5)
    centre, truth = rng.standard_normal((n_images, 1, 24)), rng.standard_normal((2, 24))
    rows = (centre + 0.05 * rng.standard_normal((n_images, per_image, 24))).reshape(-1, 24)
    noise = np.repeat(3 * rng.standard_normal((n_images, 2)), per_image, axis=0)
    return rows.astype(np.float32), (rows @ truth.T + noise).astype(np.float32), truth


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_rows_of_few_images_are_trusted_as_few(n_outputs: int) -> None:
    """Forty images of a hundred rows: as four thousand independent rows they would be fitted with hardly a ridge."""
    rows, target, truth = alike(40, 100)
    target, truth = target[:, :n_outputs], truth[:n_outputs]
    start = truth + 0.3 * np.random.default_rng(6).standard_normal(truth.shape)
    parts = summed(rows, target, n_parts=4)
    matrix, _ = solve_parts(parts, start)
    (whole,) = summed(rows, target, n_parts=1)
    plain, _ = solve_parts([whole], start)
    far, near = np.linalg.norm(plain - truth), np.linalg.norm(matrix - truth)
    assert near < 0.7 * far


def test_many_images_are_fitted_as_they_are() -> None:
    """Where every image says the same, the smallest ridge wins, whatever the fit is drawn to."""
    rows = rows_of(4000, 6)
    truth = np.random.default_rng(4).standard_normal((3, 6))
    parts = summed(rows, (rows @ truth.T).astype(np.float32), n_parts=4)
    matrix, _ = solve_parts(parts, np.zeros((3, 6)))
    whole = parts[0].plus(parts[1]).plus(parts[2]).plus(parts[3])
    expected, _ = whole.solve(np.zeros((3, 6)), RIDGES[0])
    np.testing.assert_allclose(matrix, expected)


def test_sums_without_a_part_are_those_of_the_others() -> None:
    parts = summed(rows_of(90, 5), rows_of(90, 2), n_parts=3)
    both, all_three = parts[0].plus(parts[1]), parts[0].plus(parts[1]).plus(parts[2])
    left = all_three.plus(parts[2], -1)
    assert left.n == both.n
    np.testing.assert_allclose(left.pp, both.pp)
    np.testing.assert_allclose(left.py, both.py)
