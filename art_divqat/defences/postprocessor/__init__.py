"""ART postprocessors that perturb the probabilities a classifier serves."""
