"""The eleven MuJoCo locomotion and control tasks of Gymnasium v5, as batches of slots on `mujoco.batch`."""
