"""Planning with the task's own simulator: linear control, and plans that are tried before each action."""
