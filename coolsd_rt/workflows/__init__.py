"""The complete work of each command: build, generate, parity. Connects the rooms; does not know the terminal."""
