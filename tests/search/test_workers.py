"""One contract for everything that runs trials; lost processes and nodes; Ctrl-C."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

import bocr_onnx
from bocr_onnx.errors import OutputError, UsageError
from bocr_onnx.pipeline import search as stage
from bocr_onnx.search import Inline, Journal, TrialState, search
from bocr_onnx.search.strategies import STRATEGIES
from bocr_onnx.search.workers import Job, check_ray, make_workers, threads_each
from bocr_onnx.search.workers.parcel import pack
from bocr_onnx.search.workers.processes import Processes
from bocr_onnx.search.workers.ray import MAX_AUTO
from tests.api.test_prune import DEMO, DIGITS, QUICK
from tests.search import scorers
from tests.search.problems import problem
from tests.search.scorers import Chain

pytestmark = pytest.mark.slow

EVERY = pytest.mark.parametrize("kind", ["inline", "processes", "ray"])
ACROSS = pytest.mark.parametrize("kind", ["processes", "ray"])
SMALL = {"num_cpus": 2, "object_store_memory": 80 * 2**20}


class Shuffled(Inline):
    """Three at once, which end in random order."""

    n_workers = 3

    def collect(self):
        self._jobs.rotate(int(np.random.default_rng().integers(3)))
        return super().collect()


@pytest.fixture(scope="module")
def cluster():
    """Two nodes on this machine, where a dead one is noticed within seconds."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    watch = {"health_check_period_ms": 500, "health_check_timeout_ms": 2_000, "health_check_failure_threshold": 3}
    cluster = Cluster(
        initialize_head=True, head_node_args=SMALL | {"include_dashboard": False, "_system_config": watch}
    )
    cluster.add_node(**SMALL)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def connection(cluster):
    """The address, and a connection that the program has already: its processes are warm."""
    import ray

    if not ray.is_initialized():
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    return cluster.address


@pytest.fixture
def alone():
    """No connection that the program has already."""
    ray = pytest.importorskip("ray")
    ray.shutdown()
    return ray


@pytest.fixture
def make(request):
    """Makes workers of a kind, and closes them."""
    made = []

    def make(kind, scorer, n_workers=3):
        if kind == "inline":
            workers = Shuffled(scorer)
        else:
            address = request.getfixturevalue("connection") if kind == "ray" else None
            workers = make_workers(scorer, n_workers, address)
        made.append(workers)
        return workers

    yield make
    for workers in made:
        workers.close()


def run(workers, tmp_path, file="journal.jsonl", on_trial=None, n_trials=6):
    asked = problem(n_trials=n_trials)
    journal = Journal(tmp_path / file, {"seed": asked.seed})
    return search(asked, STRATEGIES["random"].strategy, workers, journal, on_trial=on_trial)


def chain(**changed):
    return Chain(problem().space.full, **changed)


def policies(result):
    return [t.widths for t in result.trials]


def running(pid):
    """Whether a process is there and not just waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids, within_s=5.0):
    end = time.monotonic() + within_s
    while any(running(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(running(pid) for pid in pids)


# --- the contract


@EVERY
def test_every_job_has_its_outcome_and_deliberate_errors_are_reasons(kind, make):
    workers = make(kind, chain())
    jobs = [Job(n, (first, 32, 64, 64, 128, 128), None) for n, first in enumerate([32, scorers.MODEL, scorers.MEMORY])]
    for job in jobs:
        workers.submit(job)
    found = {o.number: o for o in (workers.collect() for _ in jobs)}
    assert found[0].evaluation.objective == pytest.approx(-np.log(1e-9))
    assert found[0].reason == ""
    assert found[1].evaluation is None
    assert found[1].reason == "the session must run, got nothing\n  Try again."
    assert found[2].evaluation is None
    assert found[2].reason == "MemoryError"


@EVERY
def test_a_bug_is_raised(kind, make):
    workers = make(kind, chain())
    workers.submit(Job(0, (scorers.BUG, 32, 64, 64, 128, 128), None))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        workers.collect()


@EVERY
def test_proposals_do_not_depend_on_who_is_faster(kind, make, tmp_path):
    expected = run(Shuffled(chain()), tmp_path, "expected.jsonl")
    found = run(make(kind, chain()), tmp_path)
    assert policies(found) == policies(expected)
    assert [t.objective for t in found.trials] == [t.objective for t in expected.trials]
    assert (os.getpid() in {int(t.seconds) for t in found.trials}) == (kind == "inline")


@ACROSS
def test_a_lost_worker_costs_nothing_and_one_policy_that_kills_it_fails_alone(kind, make, tmp_path):
    expected = run(Shuffled(chain()), tmp_path, "expected.jsonl")
    once, always = (tuple(policies(expected)[i] for i in numbers) for numbers in ((1, 2), (5,)))
    found = run(make(kind, chain(once=once, always=always, notes=tmp_path)), tmp_path)
    assert len(list(tmp_path.glob("*-*"))) == 6
    assert [t.state for t in found.trials] == [TrialState.FAILED if i == 5 else TrialState.COMPLETE for i in range(6)]
    assert found.trials[5].reason.startswith("its worker was lost twice")


# --- processes


def test_a_parcel_brings_arrays_of_any_kind(tmp_path):
    arrays = [np.arange(7.0), np.asfortranarray(np.ones((3, 5))), np.zeros((0, 2)), np.arange(20)[::3], np.array("a")]
    found = pack({"arrays": arrays, "text": "x" * 100}, tmp_path / "parcel").unpack()
    for made, array in zip(found["arrays"], arrays, strict=True):
        assert np.array_equal(made, array)
        assert made.dtype == array.dtype
    assert not found["arrays"][0].flags.writeable
    assert found["arrays"][1].ctypes.data % 64 == 0


def test_no_room_for_the_scorer_is_an_error_to_act_on(tmp_path):
    with pytest.raises(OutputError, match=r"must have room.*\n.*TMPDIR"):
        pack(1, tmp_path / "missing" / "parcel")


def test_the_cores_are_shared():
    assert threads_each(10_000) == 1
    assert threads_each(1) >= 1


def test_an_error_that_cannot_be_read_back_is_a_bug_too(make):
    workers = make("processes", chain())
    workers.submit(Job(0, (scorers.AWKWARD, 32, 64, 64, 128, 128), None))
    with pytest.raises(Exception, match="terminated") as raised:
        workers.collect()
    assert "AwkwardError.__init__() missing" in str(raised.value.__cause__)


def test_a_process_killed_from_outside_is_replaced(make):
    workers = make("processes", chain(seconds=0.3), 2)
    full = tuple(int(w) for w in problem().space.full)
    workers.submit(Job(0, full, None))
    pid = int(workers.collect().evaluation.seconds)
    os.kill(pid, signal.SIGKILL)  # idle
    assert gone([pid])
    for n in (1, 2):
        workers.submit(Job(n, full, None))
    pids = {int(workers.collect().evaluation.seconds) for _ in range(2)}
    workers.submit(Job(3, full, None))
    workers.submit(Job(4, full, None))
    time.sleep(0.1)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)  # busy
    found = [workers.collect() for _ in range(2)]
    assert {o.number for o in found} == {3, 4}
    assert all(int(o.evaluation.seconds) not in pids for o in found)


def test_closing_ends_what_runs_at_once(tmp_path):
    workers = Processes(chain(seconds=60), 2)
    for n in range(4):
        workers.submit(Job(n, (32,) * 6, None))
    pids = [p.pid for p in workers._context.made]
    assert len(pids) == 2
    time.sleep(1)
    start = time.monotonic()
    workers.close()
    assert time.monotonic() - start < 3
    assert gone(pids)
    workers.close()


def test_an_interrupted_search_goes_on_to_the_same_trials(tmp_path):
    whole = run(Processes(chain(), 2), tmp_path, "whole.jsonl")

    def stop(trial):
        if trial.number == 3:
            raise KeyboardInterrupt

    first = run(Processes(chain(), 2), tmp_path, "parts.jsonl", on_trial=stop)
    assert first.interrupted
    assert 3 <= len(first.trials) < 6
    second = run(Processes(chain(), 2), tmp_path, "parts.jsonl")
    assert policies(second) == policies(whole)
    assert [t.objective for t in second.trials] == [t.objective for t in whole.trials]


# --- the whole road


def journal_of(folder):
    records = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()[1:]]
    return {r["number"]: r for r in records if r["state"] != "proposed"}


def test_prune_in_processes_makes_the_trials_it_makes_in_line(tmp_path, monkeypatch):
    """The same policies for the same number of workers on one machine.

    Scores agree to rounding: linear algebra may use another number of threads in a worker. Another number of workers
    is another search, since each proposal then knows other results.
    """
    common = {"flops": 0.5, "data": DIGITS, "preset": "digits", "workers": 2, "race": False, "recover": "oneshot"}
    made = []

    def make_inline(scorer, n_workers, address):
        made.append(type("Two", (Inline,), {"n_workers": n_workers})(scorer))
        return made[-1]

    bocr_onnx.prune(DEMO, output=tmp_path / "a.onnx", **common, **QUICK)
    monkeypatch.setattr(stage, "make_workers", make_inline)
    bocr_onnx.prune(DEMO, output=tmp_path / "b.onnx", **common, **QUICK)
    assert made[0]._scorer.scorer.threads == threads_each(2)
    a, b = (journal_of(tmp_path / f"{name}.run") for name in "ab")
    assert len(a) == QUICK["trials"]
    assert [a[n]["widths"] for n in range(7)] == [b[n]["widths"] for n in range(7)]
    assert [a[n]["objective"] for n in range(7)] == pytest.approx([b[n]["objective"] for n in range(7)], rel=1e-3)


def test_a_script_without_a_main_guard_runs_once_and_says_nothing(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"import bocr_onnx\nopen({str(tmp_path / 'runs')!r}, 'a').write('run')\n"
        f"bocr_onnx.prune({str(DEMO)!r}, flops=0.6, data={str(DIGITS)!r}, preset='digits', strategy='random',\n"
        f"    recover='oneshot', output={str(tmp_path / 's.onnx')!r}, workers=2, trials=4, n_score=99, n_recovery=60)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "runs").read_text() == "run"
    assert len(journal_of(tmp_path / "s.run")) == 4


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_the_command_line_leaves_no_orphans(tmp_path, sent):
    """Ctrl-C goes to the whole group; SIGKILL to the parent alone."""
    command = [Path(sys.executable).with_name("bocr-onnx"), "prune", DEMO, "--data", DIGITS, "--preset", "digits"]
    command += ["--flops", "0.6", "--search", "random", "--trials", "2000", "--workers", "2", "-o", "s.onnx"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        journal = tmp_path / "s.run" / "journal.jsonl"
        while process.poll() is None and not (journal.exists() and "complete" in journal.read_text()):
            time.sleep(0.05)
        children = [int(c) for c in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        assert len(children) >= 2
        if sent == signal.SIGINT:
            os.killpg(process.pid, sent)
        else:
            process.kill()
        out, err = process.communicate(timeout=20)
    assert gone(children)
    assert not list(tmp_path.glob("bocr-onnx-*"))
    assert "Traceback" not in out + err
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted; what is finished is kept" in err


# --- Ray


def test_a_node_lost_in_mid_search_takes_no_trial_along(cluster, make, tmp_path):
    six = type("Six", (Inline,), {"n_workers": 6})
    expected = run(six(chain()), tmp_path, "expected.jsonl")
    lost = cluster.add_node(**SMALL)
    raylet = str(lost.all_processes["raylet"][0].process.pid)
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    notes.mkdir()

    def lose():
        there, end = [], time.monotonic() + 60
        while not there and time.monotonic() < end:
            time.sleep(0.1)
            there = [
                pid for n in notes.iterdir() for parent, _, pid in [n.read_text().partition(" ")] if parent == raylet
            ]
        cluster.remove_node(lost, allow_graceful=False)
        gone(there)
        gate.touch()

    loser = Thread(target=lose)
    loser.start()
    workers = make("ray", chain(notes=notes, gate=gate), 6)  # as many as there are CPUs
    found = run(workers, tmp_path)
    loser.join()
    assert workers._lost
    assert policies(found) == policies(expected)
    assert all(t.state is TrialState.COMPLETE for t in found.trials)


def test_a_connection_of_the_program_is_left_open(connection, make):
    import ray

    check_ray(connection)
    make("ray", chain()).close()
    assert ray.is_initialized()


def test_a_connection_of_its_own_is_closed_and_says_nothing_even_when_a_worker_is_lost(cluster, alone, tmp_path, capfd):
    check_ray(cluster.address)
    policy = (32, 32, 64, 64, 128, 128)
    workers = make_workers(chain(always=(policy,), notes=tmp_path), 1, cluster.address)
    assert workers.n_workers == min(int(alone.cluster_resources()["CPU"]), MAX_AUTO) > 1
    capfd.readouterr()
    workers.submit(Job(0, policy, None))
    assert workers.collect().reason.startswith("its worker was lost twice: ")
    time.sleep(0.5)  # when messages of the node come
    workers.close()
    assert not alone.is_initialized()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("address", ["host", "http://localhost:8265", "localhost:port", "localhost:99999", ""])
def test_an_address_of_another_form_is_refused(address):
    with pytest.raises(UsageError, match="must be auto, HOST:PORT or ray://HOST:PORT"):
        check_ray(address)


def test_an_address_where_nothing_answers_is_refused_soon(alone, monkeypatch):
    start = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    for address in (f"127.0.0.1:{free}", f"ray://127.0.0.1:{free}"):
        with pytest.raises(UsageError, match=r"must be a reachable Ray cluster, got .*refused"):
            check_ray(address)
        with pytest.raises(UsageError, match="must be a reachable Ray cluster"):
            make_workers(chain(), 2, address)
    monkeypatch.setattr("bocr_onnx.search.workers.ray.PROBE_S", 3)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(UsageError, match="no answer within 3 s"):
            check_ray(address)
    assert time.monotonic() - start < 15


def test_a_cluster_is_needed_before_anything_is_read():
    with pytest.raises(UsageError, match="`ray=ADDRESS`"):
        bocr_onnx.prune("missing.onnx", flops=0.5, data="missing", ray="nowhere")


def test_without_ray_the_hint_installs_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'bocr-onnx\[ray\]'"):
        check_ray("auto")
    check_ray(None)
