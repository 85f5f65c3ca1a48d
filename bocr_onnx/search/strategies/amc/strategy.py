"""`amc`: a reinforcement-learning agent, from scratch or with history.

An episode is a policy: the agent names a keep ratio group by group, noise is added, the policy is projected onto the
budget, and the executed one is remembered with its reward. Schedule of the authors for 800 episodes, scaled to the
number of trials in its warm-up: an eighth of them random, then truncated-normal noise of 0.5 * 0.95^k.

With history the first weights come from replaying an earlier search (`plain`), or from a pool of all of them with
states that mean the same in every model and rewards standardised by task (`augmented`); fewer random episodes and
less noise follow. The assistant predicts rewards: the best predicted of many rollouts is evaluated, and half of a
batch is synthetic.

References:
    He et al., "AMC: AutoML for Model Compression", ECCV 2018; Mu et al., "Boosting the Convergence of Reinforcement
    Learning-based Auto-pruning Using Historical Data", IEEE TCAD 43(2), 2024.
"""

from __future__ import annotations

from bocr_onnx.search.problem import Problem
from bocr_onnx.search.strategies.records import Propose


def amc(problem: Problem) -> Propose:
    """Proposes what the agent says, with noise."""
    from bocr_onnx.search.strategies.amc.proposer import Amc

    return Amc(problem).propose
