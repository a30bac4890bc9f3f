# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Faster forms of loss terms, each a function of the term's kind in a file of the term's name.

They get what the criterion shares among the terms of a rule (`losses.shared.SharedPredictions`) or plain predictions.
"""
