"""Networks and tokenizers that other libraries define, loaded from folders strictly and offline."""
