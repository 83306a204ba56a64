"""Experience that is kept: the replay of off-policy learning."""
