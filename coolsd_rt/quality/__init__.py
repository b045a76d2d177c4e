"""`coolsd-rt quality`: images of a caption file, drawn and measured."""
