# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Every error a user can meet: what was wrong, where, what was expected and what to do."""


class BoxwrightError(Exception):
    """Base of all errors boxwright raises on purpose; the command line prints it without a traceback."""


class ConfigError(BoxwrightError):
    """A configuration value is unknown, missing or out of range; the message starts with its dotted path."""


class DataError(BoxwrightError):
    """A dataset, image or label cannot be used; the message starts with the file (and line)."""


class ShapeError(BoxwrightError):
    """A tensor has the wrong rank, size, dtype or unit; the message names field, expected and got."""


class CheckpointError(BoxwrightError):
    """A checkpoint is missing, damaged or does not fit the model."""


class TrainingError(BoxwrightError):
    """Training cannot go on, for example because a loss is not finite; nothing already saved is lost."""


class ExportError(BoxwrightError):
    """An exported model cannot be written, or differs from the original."""
