"""The pool that an acquisition chooses from: every kind of move, inside the space, on the budget."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from bocr_onnx.search.proposals.candidates import SHARES, draw_candidates
from tests.search.problems import problem

CLUSTERS = np.array([0, 0, 1, 1, 1, 2, 2, 3])
N, RADIUS = 1000, 0.4
LOW = np.full(8, 0.01)
BEST, SECOND = np.linspace(0.3, 0.6, 8), np.linspace(0.7, 0.4, 8)


def logit(ratios):
    return np.log(ratios / (1 - ratios))


def draw(elites=(BEST, SECOND), clusters=CLUSTERS, radius=RADIUS, low=LOW, seed=0):
    return draw_candidates(np.array(elites), low, clusters, radius, N, np.random.default_rng(seed))


def shifts(point, elite, clusters=CLUSTERS):
    """The shift of every cluster from an elite, in logits, or None where its groups did not move together."""
    moved = logit(point) - logit(elite)
    each = [moved[clusters == c] for c in range(clusters.max() + 1)]
    return np.array([e[0] for e in each]) if all(np.ptp(e) < 1e-9 for e in each) else None


def kind(point):
    """Which move made a candidate of BEST and SECOND, by what it looks like."""
    moved = [s for s in (shifts(point, BEST), shifts(point, SECOND)) if s is not None]
    for shift in moved:
        active = shift[np.abs(shift) > 1e-9]
        if not len(active):
            return "elite"
        return "transfer" if len(active) == 2 and abs(active.sum()) < 1e-9 else "cluster"
    from_best, from_second = (np.abs(logit(point) - logit(e)) < 1e-9 for e in (BEST, SECOND))
    if (from_best | from_second).all():
        return "crossover"
    return "local" if max(from_best.sum(), from_second.sum()) else "global"


def test_every_kind_of_move_occurs_as_often_as_it_should():
    found = Counter(kind(point) for point in draw())
    assert found["local"] == pytest.approx(SHARES["local"] * N, rel=0.15)
    assert found["global"] == pytest.approx(SHARES["global"] * N, rel=0.3)
    assert found["cluster"] == pytest.approx(SHARES["cluster"] * N, rel=0.15)
    assert found["transfer"] == pytest.approx(SHARES["transfer"] * N * 3 / 4, rel=0.15)  # giver is taker in the others
    assert found["crossover"] > SHARES["crossover"] * N / 4
    assert found["elite"] < N / 5


def test_a_transfer_takes_from_one_cluster_and_gives_to_another():
    made = [shifts(p, e) for p in draw() if kind(p) == "transfer" for e in (BEST, SECOND)]
    transfers = np.array([s for s in made if s is not None])
    assert np.allclose(transfers.sum(axis=1), 0)
    assert ((transfers > 1e-9).sum(axis=1) == 1).all()
    assert set(transfers.argmin(axis=1)) == set(transfers.argmax(axis=1)) == {0, 1, 2, 3}
    assert np.sqrt((transfers.max(axis=1) ** 2).mean()) == pytest.approx(RADIUS, rel=0.2)


def test_cluster_moves_keep_one_ratio_per_cluster():
    alike = np.array([0.2, 0.5, 0.6, 0.8])[CLUSTERS]
    made = draw([alike])
    together = np.array([all(np.ptp(p[c == CLUSTERS]) < 1e-9 for c in range(4)) for p in made])
    share = SHARES["cluster"] + SHARES["transfer"] + SHARES["crossover"]
    assert together[: int(share * N)].all()
    assert not together[int(share * N) :].all()
    moved = np.array([shifts(p, alike) for p in made[: int(SHARES["cluster"] * N)]])
    active = np.abs(moved) > 1e-9
    assert moved[active].std() == pytest.approx(RADIUS, rel=0.15)
    assert active.mean(axis=0).tolist() == pytest.approx([0.6] * 4, abs=0.1)
    for one, other in combinations(range(4), 2):
        both = active[:, one] & active[:, other]
        assert abs(np.corrcoef(moved[both, one], moved[both, other])[0, 1]) < 0.5


def test_the_best_elite_is_moved_more_often_than_the_others():
    of = [[shifts(p, e) is not None for e in (BEST, SECOND)] for p in draw()[: int(SHARES["cluster"] * N)]]
    best, second = np.mean(of, axis=0)
    assert best == pytest.approx(0.75, abs=0.1)
    assert second == pytest.approx(0.25, abs=0.1)


def test_local_moves_shift_few_groups_independently():
    moved = np.array([logit(p) - logit(BEST) for p in draw([BEST]) if kind(p) == "local"])
    active = np.abs(moved) > 1e-9
    assert active.mean(axis=0).tolist() == pytest.approx([3 / 8] * 8, abs=0.12)
    assert moved[active].std() == pytest.approx(RADIUS, rel=0.2)
    both = active[:, 2] & active[:, 3]
    assert abs(np.corrcoef(moved[both, 2], moved[both, 3])[0, 1]) < 0.5


def test_global_moves_fill_the_space():
    low = np.linspace(0.1, 0.5, 8)
    spread = draw(low=low)[-int(SHARES["global"] * N) :]
    assert (spread >= low).all()
    share = (spread - low) / (1 - low)
    assert (share.min(axis=0) < 0.05).all()
    assert (share.max(axis=0) > 0.95).all()
    assert share.mean(axis=0).tolist() == pytest.approx([0.5] * 8, abs=0.05)


def test_candidates_are_inside_the_space_and_shifted_on_the_budget():
    asked = problem(widths=(32, 64) * 4)
    low = asked.space.low / asked.space.full
    made = draw([np.clip(BEST, low, 1), np.ones(8)], low=low, radius=3.0)
    assert made.shape == (N, 8)
    assert (made >= low).all()
    assert (made <= 1).all()
    shifted = asked.projection.shift(made)
    use = asked.projection.budget.use(asked.projection.cost, shifted * asked.space.full)
    assert use.tolist() == pytest.approx([1.0] * N, abs=1e-4)


def test_the_draw_depends_on_the_seed_alone():
    assert np.array_equal(draw(seed=3), draw(seed=3))
    assert not np.array_equal(draw(seed=3), draw(seed=4))
