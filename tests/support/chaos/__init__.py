"""Chaos: loader, dbt and PostgreSQL killed again and again at work; what a source sent must be there exactly once. See docs/proofs.md."""
