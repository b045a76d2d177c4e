"""Relaxation schedules chosen on recorded rounds: record, analyze, search, tune."""
