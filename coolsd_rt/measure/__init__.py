"""A figure: how fast, how much memory, beside what. Knows engines through the workflows; draws no conclusions."""
