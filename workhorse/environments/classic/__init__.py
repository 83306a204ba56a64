"""Classic control as pure JAX environments, equal to Gymnasium's step by step. One file a task."""
