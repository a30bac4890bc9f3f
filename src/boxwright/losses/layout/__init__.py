# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What labels and grid decide before the step: cells inside objects, and priors that match them.

`candidates` lays out (object, cell) pairs by the runs of `strips`; `prior_matches` does it for anchors. Nothing here
looks at a prediction.
"""
