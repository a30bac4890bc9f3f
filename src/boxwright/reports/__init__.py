# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room card: reports, what a person looks at after an inspection or an audit.

Lives here: of inspections `text.py` (terminal), `overlay.py` (pictures) and `page.py` (one HTML file; `payload.py`
and `pictures.py` fit data and images into its budget, `assets/` is the page); of audits `audit_text.py`,
`audit_files.py` and `gallery.py`; `legend.py` (words, colours and marks).
May import: inspector, auditor, viz and below; never engine, presets, api or cli.
To add a view: a function of an `Inspection` or an `Audit` that returns text, an image or a file, and its test.
Must never happen here: a number that the inspection or the audit does not hold, a request over the network.
"""
