"""What a verb does, whole: build, generate, parity. Ties the rooms together; knows no terminal."""
