"""Metrics, scoring, submission, report."""
