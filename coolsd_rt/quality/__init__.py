"""`coolsd-rt quality`: draws the images of a caption file and measures them."""
