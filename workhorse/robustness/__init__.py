"""Returns of a trained policy on changed versions of its task, and of policies that have learnt nothing."""
