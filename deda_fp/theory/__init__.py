"""The theorem: errors of a run, bounds on its exploitability, and a laboratory of exact learners."""
