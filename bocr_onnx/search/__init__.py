"""The search for each group's keep ratio under a budget."""

from bocr_onnx.search.allocation import allocate
from bocr_onnx.search.budget import Budget
from bocr_onnx.search.journal import Journal, read_record
from bocr_onnx.search.loop import SearchResult, search
from bocr_onnx.search.prior import Prior, PriorSearch
from bocr_onnx.search.problem import Problem
from bocr_onnx.search.projection import Projection
from bocr_onnx.search.proposals.clusters import cluster_tree
from bocr_onnx.search.readers import GroupReader, group_readers
from bocr_onnx.search.space import SearchSpace, build_space
from bocr_onnx.search.trial import Evaluation, Proposal, Trial, TrialState, best_trial
from bocr_onnx.search.workers import Inline

__all__ = [
    "Budget",
    "Evaluation",
    "GroupReader",
    "Inline",
    "Journal",
    "Prior",
    "PriorSearch",
    "Problem",
    "Projection",
    "Proposal",
    "SearchResult",
    "SearchSpace",
    "Trial",
    "TrialState",
    "allocate",
    "best_trial",
    "build_space",
    "cluster_tree",
    "group_readers",
    "read_record",
    "search",
]
