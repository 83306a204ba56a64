"""Progress of runs and studies on a screen: a live line in a terminal, plain lines elsewhere, or nothing."""
