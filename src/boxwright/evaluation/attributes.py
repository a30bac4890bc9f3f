# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""How often the attributes of found objects are right."""

from collections.abc import Sequence

from boxwright.evaluation.curves import claims
from boxwright.evaluation.measure import BOX, Measure
from boxwright.evaluation.scene import EvaluatedScene
from boxwright.vocabulary import AttributeSpec


def attribute_accuracy(
    scenes: Sequence[EvaluatedScene], specs: Sequence[AttributeSpec], measure: Measure = BOX
) -> dict[str, float]:
    """Share of right answers about found objects (right class, overlap of at least 0.5), by attribute.

    Of an attribute with one value the best one must be the labelled one; of one with several, every value counts by
    itself, told from 0.5 on. What is not labelled (-1) does not count. -1 where nothing can be compared.
    """
    right, asked = ({spec.name: 0 for spec in specs} for _ in range(2))
    for scene in scenes:
        found, true = claims(scene, 0.5, measure)
        for spec in specs:
            told, labelled = scene.attributes.get(spec.name), scene.true_attributes.get(spec.name)
            if told is None or labelled is None or not len(found):
                continue
            wanted, answers = labelled[true], told[found]
            answer = answers > 0.5 if spec.multi_label else answers.argmax(axis=1)
            wanted_value = wanted > 0.5 if spec.multi_label else wanted
            known = wanted >= 0
            right[spec.name] += int(((answer == wanted_value) & known).sum())
            asked[spec.name] += int(known.sum())
    return {name: right[name] / asked[name] if asked[name] else -1.0 for name in right}
