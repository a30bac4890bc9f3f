# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from boxwright.config import component, from_dict, from_yaml, override, replace, suggest, to_dict, to_yaml
from boxwright.errors import ConfigError


@component
class Near:
    kind: Literal["near"] = "near"
    topk: int = 10
    alpha: float = 0.5


@component
class Far:
    kind: Literal["far"] = "far"
    topk: int = 3
    limit: float | None = None


Assigner = Annotated[Near | Far, Field(discriminator="kind")]


@component
class Rule:
    assigner: Assigner = Near()
    extra: tuple[Assigner, ...] = ()


@component
class Tree:
    name: str
    rules: dict[str, Rule]
    freeze: int | tuple[int, ...] = 0
    optimizer: Literal["sgd", "adam"] = "sgd"
    source: Path = Path("data")
    lr0: float | None = None
    nesterov: bool = True


TREE = Tree(name="t", rules={"main": Rule(), "second": Rule(assigner=Far(limit=2.0), extra=(Near(), Far()))})


def message(call, *args):
    with pytest.raises(ConfigError) as caught:
        call(*args)
    return str(caught.value)


def test_components_are_frozen_and_compare_by_value():
    assert Near(topk=3) == Near(topk=3)
    with pytest.raises(AttributeError):
        Near().topk = 4
    assert replace(Near(), topk=4) == Near(topk=4)


def test_yaml_round_trip_gives_an_equal_tree():
    assert from_yaml(Tree, to_yaml(TREE)) == TREE


def test_dict_holds_plain_values_in_field_order():
    assert to_dict(Rule(extra=(Far(),))) == {
        "assigner": {"kind": "near", "topk": 10, "alpha": 0.5},
        "extra": [{"kind": "far", "topk": 3, "limit": None}],
    }
    assert list(to_dict(Near())) == ["kind", "topk", "alpha"]


def test_a_callable_cannot_be_written_as_yaml():
    assert "cannot be written as YAML" in message(to_yaml, replace(Rule(), assigner=len))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        # pydantic's own location of the first is rules.main.assigner.near.topk
        (
            {"main": {"assigner": {"kind": "near", "topk": "ten"}}},
            "rules.main.assigner.topk: expected an integer, got 'ten'",
        ),
        ({"main": {"asigner": {}}}, "rules.main.asigner: unknown key; did you mean 'assigner'?"),
        (
            {"main": {"assigner": {"kind": "near", "topkk": 1}}},
            "rules.main.assigner.topkk: unknown key; did you mean 'topk'?",
        ),
        (
            {"main": {"assigner": {"kind": "far", "alpha": 1}}},
            "rules.main.assigner.alpha: unknown key; known keys: kind, topk, limit",
        ),
        (
            {"main": {"assigner": {"topk": 1}}},
            "rules.main.assigner: expected a mapping with the key 'kind', got {'topk': 1}",
        ),
        ({"main": {"extra": [{"kind": "far", "limit": "x"}]}}, "rules.main.extra.0.limit: expected a number, got 'x'"),
        ({"main": {"extra": 3}}, "rules.main.extra: expected a list, got 3"),
        ({"main": 3}, "rules.main: expected a mapping of keys to values, got 3"),
        (["main"], "rules: expected a mapping of keys to values, got ['main']"),
    ],
)
def test_a_mistake_names_its_path_what_was_expected_and_what_came(rules, expected):
    assert message(from_dict, Tree, {"name": "t", "rules": rules}) == expected


def test_a_wrong_kind_lists_the_known_ones():
    text = message(from_dict, Tree, {"name": "t", "rules": {"main": {"assigner": {"kind": "neer"}}}})
    assert text.startswith("rules.main.assigner: expected kind 'near' or 'far', got {'kind': 'neer'}")


def test_a_plain_union_is_reported_once_with_all_its_members():
    assert message(from_dict, Tree, {"name": "t", "rules": {}, "freeze": "x"}) == (
        "freeze: expected an integer or a list, got 'x'"
    )


def test_every_mistake_has_a_line():
    text = message(from_dict, Tree, {"rules": {}, "optimizer": "lion", "lr0": "high", "nesterov": "maybe"})
    assert text.splitlines() == [
        "name: missing; this key has no default",
        "optimizer: expected 'sgd' or 'adam', got 'lion'",
        "lr0: expected a number, got 'high'",
        "nesterov: expected true or false, got 'maybe'",
    ]


def test_where_stands_before_the_path():
    assert (
        message(from_dict, Near, {"topk": None}, "main.assigner") == "main.assigner.topk: expected an integer, got None"
    )


def test_errors_of_a_file_start_with_its_name():
    assert message(from_yaml, Tree, "name: 3\nrules: 4", "recipe.yaml").splitlines() == [
        "recipe.yaml: name: expected text, got 3",
        "recipe.yaml: rules: expected a mapping of keys to values, got 4",
    ]


def test_text_that_is_not_a_mapping_is_refused():
    assert message(from_yaml, Near, "- 1", "a.yaml") == "a.yaml: expected a mapping of keys to values, got list"
    assert message(from_yaml, Near, "{", "a.yaml").startswith("a.yaml: not valid YAML")


def test_override_reads_values_as_yaml_and_leaves_the_original():
    changed = override(
        TREE, ["rules.main.assigner.topk=13", "freeze=[1, 2]", "lr0=1e-3", "rules.second.extra.1.limit=null"]
    )
    assert changed.rules["main"].assigner.topk == 13
    assert changed.freeze == (1, 2)
    assert changed.lr0 == pytest.approx(1e-3)
    assert TREE.rules["main"].assigner.topk == 10


def test_override_takes_a_mapping_of_paths_to_values():
    assert override(TREE, {"rules.second.assigner.limit": 4.5, "name": "u"}) == replace(
        TREE, name="u", rules={**TREE.rules, "second": replace(TREE.rules["second"], assigner=Far(limit=4.5))}
    )


def test_override_of_a_kind_keeps_the_shared_fields_and_takes_the_defaults_of_the_rest():
    assert override(TREE, ["rules.main.assigner.kind=far"]).rules["main"].assigner == Far(topk=10, limit=None)


def test_override_of_a_kind_leaves_out_shared_fields_that_mean_something_else():
    """By their type, or because the new member refuses the value."""

    @component
    class Words:
        kind: Literal["words"] = "words"
        stem: str = "conv"
        widths: tuple[int, ...] = (1, 2, 3)
        depth: int = 7

    @component
    class Numbers:
        kind: Literal["numbers"] = "numbers"
        stem: tuple[int, int] = (4, 5)
        widths: tuple[int, ...] = (6, 7)
        depth: int = 1

        def __post_init__(self):
            if len(self.widths) != 2:
                raise ConfigError("widths: expected 2")

    @component
    class Holder:
        part: Annotated[Words | Numbers, Field(discriminator="kind")] = Words()

    assert override(Holder(), ["part.kind=numbers"]).part == Numbers(depth=7)
    assert override(Holder(part=Numbers()), ["part.kind=words"]).part == Words(widths=(6, 7), depth=1)


def test_fields_of_a_new_kind_can_be_set_right_after_it():
    settings = ["rules.main.assigner.kind=far", "rules.main.assigner.limit=2.5"]

    assert override(TREE, settings).rules["main"].assigner == Far(topk=10, limit=2.5)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("rules.main.assigner.topkk=3", "rules.main.assigner.topkk: unknown key; did you mean 'topk'?"),
        ("rules.mian.assigner.topk=3", "rules.mian: unknown key; did you mean 'main'?"),
        ("rules.main.assigner.topk=many", "rules.main.assigner.topk: expected an integer, got 'many'"),
        (
            "rules.main.assigner.topk.x=3",
            "rules.main.assigner.topk.x: rules.main.assigner.topk is a plain value and has no keys",
        ),
        ("rules.second.extra.2.topk=3", "rules.second.extra.2: expected an index from 0 to 1, got '2'"),
        ("rules.main.assigner.kind=nearest", "rules.main.assigner.kind: expected one of near, far, got 'nearest'"),
        ("freeze", "freeze: expected a setting of the form a.b.c=value"),
        ("=3", "=3: expected a setting of the form a.b.c=value"),
        ("freeze=[1", "freeze: '[1' is not a valid YAML value: expected ',' or ']', but got '<stream end>'"),
        ("lr0=1e-3x", "lr0: expected a number, got '1e-3x'"),
    ],
)
def test_a_wrong_setting_names_its_path(setting, expected):
    assert message(override, TREE, [setting]) == expected


def test_suggest_lists_all_when_nothing_is_close():
    assert suggest("zzz", ["batch", "epochs"]) == "; known keys: batch, epochs"
