# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The tiny datasets of the tests of `datasets`."""

from tests.datasets.conftest import encode as encode
from tests.datasets.conftest import make_object as make_object
from tests.datasets.conftest import make_picture as make_picture
from tests.datasets.conftest import tree_hash as tree_hash
from tests.datasets.conftest import voc as voc
from tests.datasets.conftest import yolo as yolo
