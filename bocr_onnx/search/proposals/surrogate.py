"""The surrogate: a Gaussian process over executed policies, with the predicted error as its prior mean.

Glossary:
    X       keep ratios and, in the last column, the logarithm of the policy's proxy; `(n, d + 1)`, double
    Y       objectives, standardised; `(n, 1)`, double
    mean    a * log(proxy) + b, a and b fitted with the other hyperparameters, a drawn towards minus one
    k       Matern-5/2 with one lengthscale per group and the dimension-scaled prior, on the first d columns

Objectives are logarithms of distortions, and so is the mean: then policies of other budgets, which err twice as much or
half, lie on the same line and tell about those of this one.

References:
    Ament et al., "Unexpected Improvements to Expected Improvement for Bayesian Optimization", NeurIPS 2023;
    Hvarfner et al., "Vanilla Bayesian Optimization Performs Great in High Dimensions", ICML 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gpytorch
import numpy as np
import numpy.typing as npt
import torch
from botorch.acquisition.logei import qLogNoisyExpectedImprovement
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.sampling.normal import SobolQMCNormalSampler
from gpytorch.constraints import GreaterThan
from gpytorch.kernels import MaternKernel
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.priors import LogNormalPrior, NormalPrior
from torch import Tensor

from bocr_onnx.search.problem import Problem
from bocr_onnx.search.space import Point
from bocr_onnx.search.torch_thread import one_torch_thread

Floats = npt.NDArray[np.float64]
Hyperparameters = dict[str, Tensor]
MAX_FIT_STEPS = 60
N_SAMPLES = 32

NOTHING = 1e-4
"""Share of the error of the smallest policy that counts as no error."""


class ProxyMean(gpytorch.means.Mean):  # type: ignore[misc]
    """a * log(proxy) + b, where the logarithm is the last column of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("slope", torch.nn.Parameter(torch.tensor(-1.0, dtype=torch.double)))
        self.register_parameter("offset", torch.nn.Parameter(torch.tensor(0.0, dtype=torch.double)))
        self.register_prior("slope_prior", NormalPrior(-0.7, 0.5), "slope")

    def forward(self, x: Tensor) -> Tensor:
        """Returns the prior mean, shape `(..., n)`, for inputs `(..., n, d + 1)`."""
        mean: Tensor = self.slope * x[..., -1] + self.offset
        return mean


@dataclass(frozen=True, slots=True)
class Surrogate:
    """A fitted Gaussian process.

    Attributes:
        model: On standardised objectives.
        columns: From keep ratios to inputs.
    """

    model: Any
    columns: Columns

    @property
    def hyperparameters(self) -> Hyperparameters:
        """Returns what was fitted."""
        return dict(self.model.state_dict())

    def posterior_mean(self, points: Point) -> Floats:
        """Returns the posterior mean of policies, standardised, shape `(n,)`, for ratios `(n, n_groups)`."""
        with one_torch_thread(), torch.no_grad():
            return np.asarray(self.model.posterior(self.columns(points)).mean.squeeze(-1).numpy())

    def acquisition(self, points: Point, baseline: Point, pending: Point, seed: int) -> Floats:
        """Returns the log expected improvement of policies over a baseline, shape `(n,)`.

        Args:
            points: Keep ratios, shape `(n, n_groups)`.
            baseline: Policies on the budget that are to be beaten, shape `(n_baseline, n_groups)`.
            pending: Policies whose results are awaited, shape `(n_pending, n_groups)`.
            seed: Seed of the Monte Carlo sample.
        """
        sampler = SobolQMCNormalSampler(torch.Size([N_SAMPLES]), seed=seed)
        awaited = self.columns(pending) if len(pending) else None
        with one_torch_thread(), torch.no_grad():
            torch.manual_seed(seed)  # for what the baseline is pruned with
            improvement = qLogNoisyExpectedImprovement(
                self.model, self.columns(baseline), sampler=sampler, prune_baseline=True, X_pending=awaited
            )
            found = improvement(self.columns(points).unsqueeze(1))
        return np.asarray(found.numpy())


@dataclass(frozen=True, slots=True)
class Columns:
    """From keep ratios to the surrogate's inputs.

    Attributes:
        problem: Knows the proxy.
        mean: Subtracted from every logarithm before it becomes a column.
        scale: Divides it.
    """

    problem: Problem
    mean: float
    scale: float

    def __call__(self, points: Point) -> Tensor:
        """Returns inputs, shape `(n, n_groups + 1)`, for keep ratios `(n, n_groups)`."""
        proxies = (log_proxy(self.problem, points) - self.mean) / self.scale
        return torch.from_numpy(np.column_stack([points, proxies])).double()


def log_proxy(problem: Problem, points: Point) -> Floats:
    """Returns the logarithm of the predicted error of policies, shape `(n,)`, for keep ratios `(n, n_groups)`.

    What lies far below the error of the smallest policy counts as no error, that of the original too.
    """
    space = problem.space
    (largest,) = problem.proxy((space.low / space.full)[None])
    return np.asarray(np.log(problem.proxy(points) + NOTHING * max(float(largest), 1e-12)))


def fit_surrogate(
    problem: Problem, points: Point, objectives: Floats, hyperparameters: Hyperparameters | None = None
) -> Surrogate:
    """Returns a surrogate fitted to executed policies.

    Args:
        problem: Knows the proxy of a policy.
        points: Keep ratios, shape `(n, n_groups)`.
        objectives: Shape `(n,)`, larger is better.
        hyperparameters: Hyperparameters of an earlier fit to some of them; fitted where None.
    """
    proxies = log_proxy(problem, points)
    columns = Columns(problem, float(proxies.mean()), float(max(proxies.std(), 1e-9)))
    X = columns(points)
    spread = max(float(objectives.std()), 1e-9)
    Y = torch.from_numpy((objectives - objectives.mean()) / spread).double().unsqueeze(-1)
    n_groups = points.shape[1]
    lengthscale_prior = LogNormalPrior(loc=np.sqrt(2) + np.log(n_groups) / 2, scale=np.sqrt(3))
    kernel = MaternKernel(
        nu=2.5,
        ard_num_dims=n_groups,
        active_dims=tuple(range(n_groups)),
        lengthscale_prior=lengthscale_prior,
        lengthscale_constraint=GreaterThan(2.5e-2),
    )
    kernel.lengthscale = float(np.exp(lengthscale_prior.loc.item() - lengthscale_prior.scale.item() ** 2 / 3))
    with one_torch_thread():
        model = SingleTaskGP(
            X,
            Y,
            mean_module=ProxyMean(),
            covar_module=gpytorch.kernels.ScaleKernel(
                kernel,
                outputscale_prior=LogNormalPrior(-1.0, 1.0),
                outputscale_constraint=GreaterThan(1e-3),
            ),
            outcome_transform=None,
        )
        if hyperparameters is not None:
            model.load_state_dict(hyperparameters)
        else:
            mll = ExactMarginalLogLikelihood(model.likelihood, model)
            torch.manual_seed(problem.seed)  # a fit that fails is tried again from a random start
            fit_gpytorch_mll(mll, optimizer_kwargs={"options": {"maxiter": MAX_FIT_STEPS}})
    return Surrogate(model, columns)
