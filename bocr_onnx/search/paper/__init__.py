"""The published method's own parts: densities, clusters, rollback, budget wall, isotropic surrogate."""
