"""Many seeds as the unit of work: plans, what became of every run, and what may be said of it."""
