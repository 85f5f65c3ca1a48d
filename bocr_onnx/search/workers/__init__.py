"""Where trials run: in this process, in processes of this machine, or on a Ray cluster."""

from bocr_onnx.search.trial import Scorer
from bocr_onnx.search.workers.cores import threads_each
from bocr_onnx.search.workers.inline import Inline
from bocr_onnx.search.workers.records import Job, Outcome, Workers

__all__ = ["Inline", "Job", "Outcome", "Workers", "check_ray", "make_workers", "threads_each"]


def make_workers(scorer: Scorer, n_workers: int, ray_address: str | None = None) -> Workers:
    """Returns what runs trials.

    Args:
        scorer: Scores policies.
        n_workers: Trials at once; on Ray 1 is one for each CPU of the cluster, up to `ray.MAX_AUTO`.
        ray_address: Address of a Ray cluster; None means this machine.

    Raises:
        UsageError: Ray is not installed, or nothing answers at the address.
        OutputError: The temporary folder has no room for the scorer.
    """
    if ray_address is not None:
        from bocr_onnx.search.workers.ray import RayWorkers

        return RayWorkers(scorer, n_workers, ray_address)
    if n_workers > 1:
        from bocr_onnx.search.workers.processes import Processes

        return Processes(scorer, n_workers)
    return Inline(scorer)


def check_ray(address: str | None) -> None:
    """Checks that a Ray cluster answers; None means no cluster and is fine.

    Raises:
        UsageError: Ray is not installed, or no Ray cluster answers at the address.
    """
    if address is not None:
        from bocr_onnx.search.workers.ray import check_ray as check

        check(address)
