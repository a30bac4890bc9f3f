# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Every test of a term runs twice: on the definition, and on its faster form where there is one."""

from typing import get_args

import pytest

from boxwright.kernels import kernel_of
from boxwright.losses.terms import BuiltInTerm

TERMS = get_args(get_args(BuiltInTerm)[0])


@pytest.fixture(autouse=True, params=["definition", "kernel"])
def form(request, monkeypatch):
    """Which form a call of a built-in term computes."""
    if request.param == "kernel":
        for term in TERMS:
            patch(monkeypatch, term)
    return request.param


def patch(monkeypatch, term):
    define = term.__call__

    def call(self, *arguments):
        kernel = kernel_of(self)
        return define(self, *arguments) if kernel is None else kernel(self, *arguments)

    monkeypatch.setattr(term, "__call__", call)
