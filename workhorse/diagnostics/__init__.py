"""First principles: what a policy gradient method assumes, measured on a run."""
