def plan() -> None:
    """Not yet."""
