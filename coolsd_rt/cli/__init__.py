"""Text on a terminal: one thin file per verb, no logic."""
