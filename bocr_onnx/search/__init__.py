"""The search for each group's keep ratio under a budget."""

from bocr_onnx.search.journal import Journal, read_record
from bocr_onnx.search.loop import SearchResult, search
from bocr_onnx.search.problem import Problem, allocate
from bocr_onnx.search.project import Projection
from bocr_onnx.search.space import Budget, SearchSpace, build_space
from bocr_onnx.search.trial import Evaluation, Trial, TrialState, best_trial

__all__ = [
    "Budget",
    "Evaluation",
    "Journal",
    "Problem",
    "Projection",
    "SearchResult",
    "SearchSpace",
    "Trial",
    "TrialState",
    "allocate",
    "best_trial",
    "build_space",
    "read_record",
    "search",
]
