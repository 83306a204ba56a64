"""Evolution strategies and their simplest relatives: search in parameter space by whole episodes' returns."""
