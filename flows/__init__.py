"""Prefect flows: order, retries, schedules, artifacts. No maths. The only place that imports prefect."""
