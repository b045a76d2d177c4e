"""Schedules of the relaxation, chosen on recorded rounds: record, analyze, search, tune."""
