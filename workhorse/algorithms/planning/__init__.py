"""Planning: an action is found by trying plans in the task's own simulator."""
