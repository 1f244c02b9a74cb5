"""Learners: best responses, average policies and models of the population."""
