"""What strategies make proposals from: starts, clusters, candidates, hints, and the surrogate."""
