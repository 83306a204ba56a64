"""No two diagnoses of a run draw the same experience."""

from workhorse.diagnostics import baselines, gradients, landscape, plane, values


def test_every_diagnosis_has_a_root_of_its_own():
    roots = [module.OTHER_ROOT for module in (baselines, gradients, landscape, values)]
    assert len(set(roots)) == len(roots)
    assert all(0 < root < 2**32 for root in roots)


def test_rollouts_of_a_plane_have_addresses_that_its_points_do_not_reach():
    assert 2**24 < plane.ADDRESSES < 2**32 - 2**24
