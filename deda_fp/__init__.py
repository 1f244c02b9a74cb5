"""The companion to the DEDA-FP paper, on top of mfglib: its games, theory, finite crowds, robots and pictures."""
