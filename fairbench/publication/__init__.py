"""Leaderboards that are published, checked and merged; docs/publishing.md says what a check can know."""
