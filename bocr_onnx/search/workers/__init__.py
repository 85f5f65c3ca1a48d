"""Where trials run: in this process, in processes of this machine, or on a Ray cluster."""

from bocr_onnx.search.workers.inline import Inline
from bocr_onnx.search.workers.records import Job, Outcome, Workers

__all__ = ["Inline", "Job", "Outcome", "Workers"]
