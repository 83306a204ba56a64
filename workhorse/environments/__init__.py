"""Tasks: MuJoCo on the batch simulator, classic control in JAX, and any Gymnasium environment through an adapter."""
