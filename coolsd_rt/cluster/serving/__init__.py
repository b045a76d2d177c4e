"""Images over HTTP by Ray Serve: replicas of engines on several machines behind the routes of `serve`."""
