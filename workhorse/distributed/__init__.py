"""The same run on many processes and machines: chunks of episodes out, scalars back. Only this package imports Ray."""
