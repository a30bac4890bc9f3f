# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Where a loss stopped being finite: role, term, image, object and candidate."""

from dataclasses import replace

import torch

from boxwright.faults import faults_of
from boxwright.structures import Assignment, LossBreakdown, LossItem, Targets

NAN, INF = float("nan"), float("inf")


def breakdown_of(box, cls, role="main"):
    pairs = Assignment(
        image=torch.tensor([0, 3]),
        anchor=torch.tensor([1, 0]),
        target=torch.tensor([1, 2]),
        valid=torch.tensor([True, True]),
        weight=torch.ones(2),
        normalizer=torch.tensor(1.0),
    )
    items = (LossItem(f"{role}/box", torch.tensor(box), 7.5), LossItem(f"{role}/cls", torch.tensor(cls), 0.5))
    return LossBreakdown(items, {role: pairs}, 4.0)


def targets():
    labels = torch.tensor([[0, 1, 1]] * 4)
    return Targets(labels, torch.arange(48, dtype=torch.float32).view(4, 3, 4), torch.ones(4, 3) > 0)


def test_a_finite_loss_has_no_fault():
    assert faults_of(breakdown_of([1.0, 2.0], [[0.0, 1.0]] * 4)) == ()


def test_a_pair_names_role_term_image_object_and_candidate():
    (fault,) = faults_of(breakdown_of([1.0, NAN], [[0.0]] * 4, role="decoder3"), targets(), ["cat", "dog"])

    assert (fault.role, fault.term, fault.name) == ("decoder3", "box", "decoder3/box")
    assert fault.images == (3,)
    assert fault.words() == (
        "decoder3/box: 1 of 2 contributions are not finite: "
        "nan in image 3, object 2 (dog at (44.0, 45.0, 46.0, 47.0)), candidate 0"
    )


def test_a_dense_term_names_the_object_that_holds_the_candidate():
    (fault,) = faults_of(breakdown_of([1.0, 2.0], [[0.0, INF], [0.0, INF], [0.0, 0.0], [NAN, NAN]]), targets())

    assert fault.images == (0, 1, 3)
    assert [place.object for place in fault.places] == [1, None, 2]
    assert fault.words() == (
        "main/cls: 4 of 8 contributions are not finite: "
        "inf in image 0, object 1 (class 1 at (4.0, 5.0, 6.0, 7.0)), candidate 1; "
        "inf in image 1, no object, candidate 1; "
        "nan in image 3, object 2 (class 1 at (44.0, 45.0, 46.0, 47.0)), candidate 0; and 1 more"
    )


def test_a_term_of_whole_images_names_the_image():
    (fault,) = faults_of(LossBreakdown((LossItem("main/class", torch.tensor([1.0, NAN, 2.0]), 1.0),), {}, 1.0))

    assert fault.words() == "main/class: 1 of 3 contributions are not finite: nan in image 1"


def test_among_more_images_the_numbers_move():
    (fault,) = faults_of(breakdown_of([1.0, NAN], [[0.0]] * 4))

    assert fault.moved(10).images == (13,)
    assert "image 13, object 2" in fault.moved(10).words()


def test_a_spoilt_weight_is_named_although_it_spoils_every_contribution():
    found = breakdown_of([NAN, NAN], [[NAN, NAN]] * 4)
    pairs = replace(found.assignments["main"], weight=torch.tensor([1.0, NAN]), normalizer=torch.tensor(NAN))

    faults = faults_of(replace(found, assignments={"main": pairs}), targets())

    assert [fault.images for fault in faults] == [(3,), (3,)]
    assert [fault.count for fault in faults] == [2, 8]
    assert faults[1].words() == (
        "main/cls: 8 of 8 contributions are not finite, as the sum of all pairs' weights is not; it comes from "
        "nan in image 3, object 2 (class 1 at (44.0, 45.0, 46.0, 47.0)), candidate 0"
    )
