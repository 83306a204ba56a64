"""Policy gradients: a stochastic policy moved along an estimate of the gradient of its return."""
